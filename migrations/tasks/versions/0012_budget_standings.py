"""Whose runs are kept back because a budget is used up."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "budget_standings",
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject_id", Id, nullable=False),
        sa.Column("is_blocked", sa.Boolean(), nullable=False),
        sa.Column("blocked_until", Timestamp),
        sa.Column("is_counted", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("told_by", Id, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject_id", name="pk_budget_standings"),
        sa.CheckConstraint("kind IN ('agent', 'task')", name=op.f("ck_budget_standings_kind")),
    )

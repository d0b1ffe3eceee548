"""Workflow templates."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Json, Timestamp

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_templates"),
    )

"""Hand-offs that are accepted, rejected or expire; the traces in which workflows change."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Timestamp

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    empty, offered = sa.text("''"), sa.text("status = 'offered'")
    op.add_column("workflows", sa.Column("traceparent", sa.String(55), nullable=False, server_default=empty))
    op.add_column("workflow_events", sa.Column("trace_id", sa.String(32), nullable=False, server_default=empty))
    for column in (
        # Nobody had to accept what was handed over before.
        sa.Column("status", sa.String(16), nullable=False, server_default=sa.text("'accepted'")),
        sa.Column("came_from", sa.String(16), nullable=False, server_default=sa.text("'in_progress'")),
        sa.Column("ack_deadline", Timestamp),
        sa.Column("decided_by", Id),
        sa.Column("decided_at", Timestamp),
        sa.Column("reason", sa.Text(), nullable=False, server_default=empty),
    ):
        op.add_column("handoffs", column)
    for name in ("status", "to_role"):
        op.create_index(f"ix_handoffs_{name}", "handoffs", [name, "id"])
    op.create_index(
        "ix_handoffs_ack_deadline", "handoffs", ["ack_deadline"], postgresql_where=offered, sqlite_where=offered
    )

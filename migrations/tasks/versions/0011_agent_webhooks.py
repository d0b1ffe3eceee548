"""Webhooks of agents, which hear of what becomes of the agent's own runs."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("agent_id", Id))
    op.add_column("webhooks", sa.Column("told_by", Id))
    given = sa.text("agent_id IS NOT NULL")
    op.create_index(
        "uq_webhooks_agent_id", "webhooks", ["agent_id"], unique=True, postgresql_where=given, sqlite_where=given
    )

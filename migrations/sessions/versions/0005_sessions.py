"""Sessions of agents, and how their status changed."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0005"
down_revision = "0004"

_STATUSES = "'pending', 'active', 'paused', 'completed', 'failed', 'expired'"
_OPEN = "status NOT IN ('completed', 'failed', 'expired')"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_role", sa.String(50), nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("task_id", Id),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("idle_timeout_seconds", sa.Integer()),
        sa.Column("max_lifetime_seconds", sa.Integer()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.Column("last_activity_at", Timestamp, nullable=False),
        sa.Column("last_transition_at", Timestamp),
        sa.Column("expires_at", Timestamp),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_sessions_agent_id"),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name=op.f("ck_sessions_status")),
    )
    for column in ("status", "agent_role", "agent_id"):
        op.create_index(f"ix_sessions_{column}", "sessions", [column, "id"])
    _create_partial_index("ix_sessions_task_id", ["task_id", "id"], "task_id IS NOT NULL")
    _create_partial_index("ix_sessions_active", ["updated_at", "id"], "status = 'active'")
    _create_partial_index("ix_sessions_expires_at", ["expires_at"], _OPEN)
    _create_partial_index("ix_sessions_last_activity_at", ["last_activity_at"], _OPEN)
    op.create_table(
        "session_transitions",
        sa.Column("session_id", Id, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("from_status", sa.String(16), nullable=False),
        sa.Column("to_status", sa.String(16), nullable=False),
        sa.Column("event", sa.String(16)),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("actor", sa.String(36), nullable=False),
        sa.Column("occurred_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "version", name="pk_session_transitions"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_session_transitions_session_id"),
    )


def _create_partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "sessions", columns, postgresql_where=where, sqlite_where=where)

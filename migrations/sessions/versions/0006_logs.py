"""Prompts, the logs of agents and of the system, and the chat, with the feed that merges them."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    _create_heads()
    _create_agent_logs()
    _create_system_logs()
    _create_chat_messages()
    _create_prompts()


def _create_heads() -> None:
    op.create_table(
        "feed_head",
        sa.Column("id", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        sa.Column("pruned_to", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feed_head"),
        sa.CheckConstraint("id = 1", name=op.f("ck_feed_head_id")),
    )
    # 1970, in either engine's form.
    beginning = "'epoch'" if op.get_bind().dialect.name == "postgresql" else "0"
    op.execute(f"INSERT INTO feed_head (id, position, recorded_at, pruned_to) VALUES (1, 0, {beginning}, 0)")
    op.create_table(
        "agent_log_heads",
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("task_slug", sa.String(100), nullable=False),
        sa.Column("next_index", sa.BigInteger(), nullable=False),
        sa.Column("used_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "task_slug", name="pk_agent_log_heads"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_agent_log_heads_agent_id"),
    )
    op.create_index("ix_agent_log_heads_used_at", "agent_log_heads", ["used_at"])


def _create_agent_logs() -> None:
    table = "agent_logs"
    op.create_table(
        table,
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("session_id", sa.String(200), nullable=False),
        sa.Column("task_slug", sa.String(100), nullable=False),
        sa.Column("entry_index", sa.BigInteger(), nullable=False),
        sa.Column("event_category", sa.String(16), nullable=False),
        sa.Column("event_type", sa.String(64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("payload", Json),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("workflow_id", Id),
        sa.Column("workflow_step", sa.String(100), nullable=False),
        sa.Column("timestamp", Timestamp, nullable=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_agent_logs"),
        sa.CheckConstraint("event_category IN ('hook', 'response')", name=op.f("ck_agent_logs_event_category")),
    )
    op.create_index("uq_agent_logs_entry_index", table, ["agent_id", "task_slug", "entry_index"], unique=True)
    op.create_index("ix_agent_logs_agent_id", table, ["agent_id", "position", "recorded_at"])
    op.create_index("ix_agent_logs_event_category", table, ["agent_id", "event_category", "position", "recorded_at"])
    op.create_index("ix_agent_logs_event_type", table, ["agent_id", "event_type", "position", "recorded_at"])
    _create_partial_index(table, "session_id", ["position", "recorded_at"], "session_id <> ''")
    _create_partial_index(table, "task_slug", ["position", "recorded_at"], "task_slug <> ''")
    _create_partial_index(table, "workflow_id", ["position", "recorded_at"], "workflow_id IS NOT NULL")
    op.create_index("ix_agent_logs_recorded_at", table, ["recorded_at", "position"])


def _create_system_logs() -> None:
    table = "system_logs"
    op.create_table(
        table,
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("file_path", sa.String(1024), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("metadata", Json),
        sa.Column("workflow_id", Id),
        sa.Column("workflow_step", sa.String(100), nullable=False),
        sa.Column("timestamp", Timestamp, nullable=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_system_logs"),
        sa.CheckConstraint("level IN ('debug', 'info', 'warning', 'error')", name=op.f("ck_system_logs_level")),
    )
    op.create_index("ix_system_logs_level", table, ["level", "position", "recorded_at"])
    op.create_index("ix_system_logs_agent_id", table, ["agent_id", "position", "recorded_at"])
    _create_partial_index(table, "workflow_id", ["position", "recorded_at"], "workflow_id IS NOT NULL")
    op.create_index("ix_system_logs_recorded_at", table, ["recorded_at", "position"])


def _create_chat_messages() -> None:
    table, sides = "chat_messages", "IN ('user', 'orchestrator', 'agent')"
    op.create_table(
        table,
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("id", Id, nullable=False),
        sa.Column("orchestrator_agent_id", Id, nullable=False),
        sa.Column("sender_type", sa.String(16), nullable=False),
        sa.Column("receiver_type", sa.String(16), nullable=False),
        sa.Column("agent_id", Id),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("metadata", Json),
        sa.Column("sent_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_chat_messages"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_chat_messages_agent_id"),
        sa.ForeignKeyConstraint(
            ["orchestrator_agent_id"], ["agents.id"], name="fk_chat_messages_orchestrator_agent_id"
        ),
        sa.CheckConstraint(f"sender_type {sides}", name=op.f("ck_chat_messages_sender_type")),
        sa.CheckConstraint(f"receiver_type {sides}", name=op.f("ck_chat_messages_receiver_type")),
        sa.CheckConstraint("sender_type <> receiver_type", name=op.f("ck_chat_messages_sides")),
        sa.CheckConstraint(
            "(sender_type = 'agent' OR receiver_type = 'agent') = (agent_id IS NOT NULL)",
            name=op.f("ck_chat_messages_agent_id"),
        ),
    )
    for column in ("orchestrator_agent_id", "sender_type", "receiver_type"):
        op.create_index(f"ix_chat_messages_{column}", table, [column, "position", "created_at"])
    op.create_index("ix_chat_messages_created_at", table, ["created_at", "position"])
    _create_partial_index(table, "agent_id", ["position", "created_at"], "agent_id IS NOT NULL")


def _create_prompts() -> None:
    table = "prompts"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("agent_id", Id),
        sa.Column("task_slug", sa.String(100), nullable=False),
        sa.Column("author", sa.String(20), nullable=False),
        sa.Column("prompt_text", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("session_id", sa.String(200), nullable=False),
        sa.Column("recorded_by", Id, nullable=False),
        sa.Column("timestamp", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prompts"),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name="fk_prompts_agent_id"),
        sa.CheckConstraint("author IN ('engineer', 'orchestrator_agent')", name=op.f("ck_prompts_author")),
    )
    for column in ("author", "task_slug"):
        op.create_index(f"ix_prompts_{column}", table, [column, "id"])
    _create_partial_index(table, "agent_id", ["id"], "agent_id IS NOT NULL")
    _create_partial_index(table, "session_id", ["id"], "session_id <> ''")
    op.create_index("ix_prompts_timestamp", table, ["timestamp"])


def _create_partial_index(table: str, column: str, order: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(f"ix_{table}_{column}", table, [column, *order], postgresql_where=where, sqlite_where=where)

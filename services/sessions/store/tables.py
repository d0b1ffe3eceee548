"""The tables of the sessions context."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    false,
    text,
)

from services.chassis.answers import idempotency_table
from services.chassis.columns import Id, Json, Timestamp, new_metadata
from services.chassis.outbox import outbox_table

metadata = new_metadata()

idempotency_keys = idempotency_table(metadata)

outbox = outbox_table(metadata)

_EMPTY, _ZERO = text("''"), text("0")

# The defaults are for a Baton of before these columns, which may run beside this one while it is replaced. A trigger
# moves `updated_at` with every UPDATE that does not set it.
agents = Table(
    "agents",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("role", String(50), nullable=False, server_default=_EMPTY),
    Column("model", String(100), nullable=False, server_default=_EMPTY),
    Column("system_prompt", Text, nullable=False, server_default=_EMPTY),
    Column("webhook_url", String(2048)),
    Column("status", String(16), nullable=False, server_default=text("'idle'")),
    Column("working_dir", String(1024), nullable=False, server_default=_EMPTY),
    Column("git_worktree", String(1024), nullable=False, server_default=_EMPTY),
    Column("session_id", String(200)),
    Column("orchestrator_agent_id", Id, ForeignKey("agents.id")),
    Column("input_tokens", BigInteger, nullable=False, server_default=_ZERO),
    Column("output_tokens", BigInteger, nullable=False, server_default=_ZERO),
    Column("cost_microusd", BigInteger, nullable=False, server_default=_ZERO),
    Column("metadata", Json, nullable=False, server_default=text("'{}'")),
    Column("archived_at", Timestamp),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("is_orchestrator", Boolean, nullable=False, server_default=false()),
    CheckConstraint("status IN ('idle', 'executing', 'waiting', 'blocked', 'complete')", name="status"),
    # A name is free again when its agent is archived. Also finds an agent by its name.
    Index(
        "ix_agents_live_name",
        "name",
        unique=True,
        postgresql_where=text("archived_at IS NULL"),
        sqlite_where=text("archived_at IS NULL"),
    ),
    # There is one orchestrator. Also finds it.
    Index(
        "ix_agents_live_orchestrator",
        "is_orchestrator",
        unique=True,
        postgresql_where=text("is_orchestrator AND archived_at IS NULL"),
        sqlite_where=text("is_orchestrator AND archived_at IS NULL"),
    ),
)

# The one secret that an agent may have. Of the secret itself only its SHA-256 is here.
agent_secrets = Table(
    "agent_secrets",
    metadata,
    Column("agent_id", Id, ForeignKey("agents.id"), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("created_by", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

# Of the token itself only its SHA-256 is here.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    Column("agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
    Column("revoked_at", Timestamp),
    Column("kind", String(16), nullable=False, server_default=text("'minted'")),
    # What came of one use of a secret: an access and a refresh token, and those that they were refreshed into.
    Column("family_id", Id),
    Column("replaced_by", Id),
    Column("created_by", Id),
    Column("last_used_at", Timestamp),
    CheckConstraint("kind IN ('minted', 'access', 'refresh')", name="kind"),
    CheckConstraint("(kind = 'minted') = (family_id IS NULL)", name="family_id"),
    # An agent's tokens, newest first.
    Index("ix_tokens_agent_id", "agent_id", "id"),
    # What ends together.
    Index(
        "ix_tokens_family_id",
        "family_id",
        postgresql_where=text("family_id IS NOT NULL"),
        sqlite_where=text("family_id IS NOT NULL"),
    ),
    # What nobody needs to know of any more.
    Index(
        "ix_tokens_expired",
        "expires_at",
        postgresql_where=text("family_id IS NOT NULL"),
        sqlite_where=text("family_id IS NOT NULL"),
    ),
)

# Each entry seals those before it, with a key that is not here; a trigger refuses to change or remove any.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Id, nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("context", String(20), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(100), nullable=False),
    Column("resource", String(200), nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("before_digest", String(64), nullable=False),
    Column("after_digest", String(64), nullable=False),
    Column("note", Text, nullable=False),
    Column("request_id", String(255), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("uq_audit_entries_id", "id", unique=True),
    Index("ix_audit_entries_actor", "actor", "sequence"),
    Index("ix_audit_entries_action", "action", "sequence"),
    Index("ix_audit_entries_resource", "resource", "sequence"),
    Index("ix_audit_entries_occurred_at", "occurred_at"),
    *(
        Index(
            f"ix_audit_entries_{column}",
            column,
            "sequence",
            postgresql_where=text(f"{column} <> ''"),
            sqlite_where=text(f"{column} <> ''"),
        )
        for column in ("trace_id", "run_id", "request_id")
    ),
)

# The one row says where the chain ends, so that what is cut off there is missed.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("seal", String(64), nullable=False),
    CheckConstraint("id = 1", name="id"),
)

# In statements, too, so that the database knows its partial indexes by it: it does not know them by parameters. What is
# open is said by what is not, else SQLite would look in the index of statuses.
is_open, is_active = text("status NOT IN ('completed', 'failed', 'expired')"), text("status = 'active'")

# `expires_at` is when a session that is open ends by its own timeouts; the operator's comes on top.
sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent_role", String(50), nullable=False),
    Column("agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("task_id", Id),
    Column("status", String(16), nullable=False),
    Column("metadata", Json, nullable=False),
    Column("idle_timeout_seconds", Integer),
    Column("max_lifetime_seconds", Integer),
    Column("version", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("last_activity_at", Timestamp, nullable=False),
    Column("last_transition_at", Timestamp),
    Column("expires_at", Timestamp),
    CheckConstraint("status IN ('pending', 'active', 'paused', 'completed', 'failed', 'expired')", name="status"),
    # A page of what is filtered by, newest first.
    *(Index(f"ix_sessions_{column}", column, "id") for column in ("status", "agent_role", "agent_id")),
    Index(
        "ix_sessions_task_id",
        "task_id",
        "id",
        postgresql_where=text("task_id IS NOT NULL"),
        sqlite_where=text("task_id IS NOT NULL"),
    ),
    # A page of active sessions, those first that were changed last.
    Index(
        "ix_sessions_active",
        "updated_at",
        "id",
        postgresql_where=is_active,
        sqlite_where=is_active,
    ),
    # What is to expire.
    *(
        Index(f"ix_sessions_{column}", column, postgresql_where=is_open, sqlite_where=is_open)
        for column in ("expires_at", "last_activity_at")
    ),
)

# One row for each change of a session's status; the versions are their order.
session_transitions = Table(
    "session_transitions",
    metadata,
    Column("session_id", Id, ForeignKey("sessions.id"), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("from_status", String(16), nullable=False),
    Column("to_status", String(16), nullable=False),
    Column("event", String(16)),
    Column("reason", String(500), nullable=False),
    Column("actor", String(36), nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
)

# The feed is everything that the tables below hold, by position. Whoever adds to it locks this one row until the end of
# the transaction: so positions follow the order of commits, and who has read up to one has missed nothing before it.
# `recorded_at` never goes back, `pruned_to` is the last position that retention has deleted.
feed_head = Table(
    "feed_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    Column("pruned_to", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="id"),
)

# The number of the next entry of an agent's log about one piece of work. Locked until the end of the transaction that
# takes some, so that they have no gap.
agent_log_heads = Table(
    "agent_log_heads",
    metadata,
    Column("agent_id", Id, ForeignKey("agents.id"), primary_key=True),
    Column("task_slug", String(100), primary_key=True),
    Column("next_index", BigInteger, nullable=False),
    Column("used_at", Timestamp, nullable=False),
    # Those of work that is long over.
    Index("ix_agent_log_heads_used_at", "used_at"),
)


def _index_where(condition: str, name: str, *columns: str, unique: bool = False) -> Index:
    """An index of some rows only."""
    return Index(name, *columns, unique=unique, postgresql_where=text(condition), sqlite_where=text(condition))


# That the agent is there is known from `agent_log_heads`: a foreign key would look for it again for every entry.
agent_logs = Table(
    "agent_logs",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Id, nullable=False),
    Column("agent_id", Id, nullable=False),
    Column("session_id", String(200), nullable=False),
    Column("task_slug", String(100), nullable=False),
    Column("entry_index", BigInteger, nullable=False),
    Column("event_category", String(16), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("content", Text, nullable=False),
    Column("payload", Json),
    Column("summary", Text, nullable=False),
    Column("workflow_id", Id),
    Column("workflow_step", String(100), nullable=False),
    Column("timestamp", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    CheckConstraint("event_category IN ('hook', 'response')", name="event_category"),
    # An agent's entries about one piece of work, which are in the same order by position.
    Index("uq_agent_logs_entry_index", "agent_id", "task_slug", "entry_index", unique=True),
    # One for each filter, newest first. The time at the end decides nothing: it keeps PostgreSQL from reading the
    # primary key backwards, past all that others have logged, when it guesses wrong how common a value is.
    Index("ix_agent_logs_agent_id", "agent_id", "position", "recorded_at"),
    Index("ix_agent_logs_event_category", "agent_id", "event_category", "position", "recorded_at"),
    Index("ix_agent_logs_event_type", "agent_id", "event_type", "position", "recorded_at"),
    _index_where("session_id <> ''", "ix_agent_logs_session_id", "session_id", "position", "recorded_at"),
    _index_where("task_slug <> ''", "ix_agent_logs_task_slug", "task_slug", "position", "recorded_at"),
    _index_where("workflow_id IS NOT NULL", "ix_agent_logs_workflow_id", "workflow_id", "position", "recorded_at"),
    # Which position a time is at.
    Index("ix_agent_logs_recorded_at", "recorded_at", "position"),
)

system_logs = Table(
    "system_logs",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Id, nullable=False),
    Column("agent_id", Id, nullable=False),
    Column("level", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("file_path", String(1024), nullable=False),
    Column("summary", Text, nullable=False),
    Column("metadata", Json),
    Column("workflow_id", Id),
    Column("workflow_step", String(100), nullable=False),
    Column("timestamp", Timestamp, nullable=False),
    Column("recorded_at", Timestamp, nullable=False),
    CheckConstraint("level IN ('debug', 'info', 'warning', 'error')", name="level"),
    # One for each filter, newest first.
    Index("ix_system_logs_level", "level", "position", "recorded_at"),
    Index("ix_system_logs_agent_id", "agent_id", "position", "recorded_at"),
    _index_where("workflow_id IS NOT NULL", "ix_system_logs_workflow_id", "workflow_id", "position", "recorded_at"),
    # Which position a time is at.
    Index("ix_system_logs_recorded_at", "recorded_at", "position"),
)

chat_messages = Table(
    "chat_messages",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Id, nullable=False),
    Column("orchestrator_agent_id", Id, ForeignKey("agents.id"), nullable=False),
    Column("sender_type", String(16), nullable=False),
    Column("receiver_type", String(16), nullable=False),
    Column("agent_id", Id, ForeignKey("agents.id")),
    Column("message", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("metadata", Json),
    Column("sent_by", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    CheckConstraint("sender_type IN ('user', 'orchestrator', 'agent')", name="sender_type"),
    CheckConstraint("receiver_type IN ('user', 'orchestrator', 'agent')", name="receiver_type"),
    CheckConstraint("sender_type <> receiver_type", name="sides"),
    CheckConstraint("(sender_type = 'agent' OR receiver_type = 'agent') = (agent_id IS NOT NULL)", name="agent_id"),
    # One for each filter, newest first.
    Index("ix_chat_messages_orchestrator_agent_id", "orchestrator_agent_id", "position", "created_at"),
    _index_where("agent_id IS NOT NULL", "ix_chat_messages_agent_id", "agent_id", "position", "created_at"),
    Index("ix_chat_messages_sender_type", "sender_type", "position", "created_at"),
    Index("ix_chat_messages_receiver_type", "receiver_type", "position", "created_at"),
    # Which position a time is at.
    Index("ix_chat_messages_created_at", "created_at", "position"),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent_id", Id, ForeignKey("agents.id")),
    Column("task_slug", String(100), nullable=False),
    Column("author", String(20), nullable=False),
    Column("prompt_text", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("session_id", String(200), nullable=False),
    Column("recorded_by", Id, nullable=False),
    Column("timestamp", Timestamp, nullable=False),
    CheckConstraint("author IN ('engineer', 'orchestrator_agent')", name="author"),
    # One for each filter, newest first.
    _index_where("agent_id IS NOT NULL", "ix_prompts_agent_id", "agent_id", "id"),
    Index("ix_prompts_author", "author", "id"),
    Index("ix_prompts_task_slug", "task_slug", "id"),
    _index_where("session_id <> ''", "ix_prompts_session_id", "session_id", "id"),
    Index("ix_prompts_timestamp", "timestamp"),
)


def _amounts() -> list[Column[Any]]:
    """What is counted of a call, or of many."""
    names = ("input_tokens", "output_tokens", "cached_tokens", "cost_microusd", "tool_calls", "wall_time_ms")
    return [Column(name, BigInteger, nullable=False) for name in names]


NO_SESSION = "00000000-0000-0000-0000-000000000000"
"""Stands in `usage_days` for none."""

# That the agent is there was seen when its own sums were added to.
usage_calls = Table(
    "usage_calls",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent_id", Id, nullable=False),
    Column("session_id", Id),
    Column("run_id", Id),
    Column("model", String(100), nullable=False),
    *_amounts(),
    Column("occurred_at", Timestamp, nullable=False),
    Column("recorded_by", Id, nullable=False),
    # One for each filter, newest first.
    Index("ix_usage_calls_agent_id", "agent_id", "id"),
    Index("ix_usage_calls_model", "model", "id"),
    _index_where("session_id IS NOT NULL", "ix_usage_calls_session_id", "session_id", "id"),
    _index_where("run_id IS NOT NULL", "ix_usage_calls_run_id", "run_id", "id"),
)

# The sums, which outlive the calls.
usage_days = Table(
    "usage_days",
    metadata,
    Column("day", String(10), primary_key=True),
    Column("agent_id", Id, primary_key=True),
    Column("session_id", Id, primary_key=True),
    Column("model", String(100), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    *_amounts(),
    Index("ix_usage_days_agent_id", "agent_id", "day"),
    Index("ix_usage_days_session_id", "session_id", "day"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent_id", Id, ForeignKey("agents.id")),
    Column("session_id", Id, ForeignKey("sessions.id")),
    Column("metric", String(16), nullable=False),
    Column("period", String(8), nullable=False),
    Column("soft_limit", BigInteger),
    Column("hard_limit", BigInteger),
    Column("used", BigInteger, nullable=False),
    Column("period_start", Timestamp, nullable=False),
    Column("created_by", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint("(agent_id IS NULL) <> (session_id IS NULL)", name="subject"),
    CheckConstraint("metric IN ('tokens', 'cost_microusd', 'tool_calls', 'wall_time_ms')", name="metric"),
    CheckConstraint("period IN ('total', 'day', 'month')", name="period"),
    CheckConstraint("soft_limit IS NOT NULL OR hard_limit IS NOT NULL", name="limits"),
    _index_where("agent_id IS NOT NULL", "uq_budgets_agent_id", "agent_id", "metric", "period", unique=True),
    _index_where("session_id IS NOT NULL", "uq_budgets_session_id", "session_id", "metric", "period", unique=True),
)

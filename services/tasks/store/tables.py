"""The tables of the tasks context."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

from services.chassis.columns import Id, Json, Timestamp, new_metadata
from services.chassis.idempotency import idempotency_table

metadata = new_metadata()

idempotency_keys = idempotency_table(metadata)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("title", String(200), nullable=False),
    Column("description", String(2000), nullable=False),
    Column("schedule_kind", String(16), nullable=False),
    Column("schedule_expr", String(200), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("payload", Json, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("created_by", Id, nullable=False),
    Column("status", String(16), nullable=False),
    Column("next_fire_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint("schedule_kind IN ('cron', 'once', 'manual')", name="schedule_kind"),
    CheckConstraint("status IN ('active', 'paused', 'canceled')", name="status"),
    CheckConstraint("priority BETWEEN 1 AND 9", name="priority"),
    # What the scheduler asks for: active tasks that are due, earliest first.
    Index(
        "ix_tasks_due",
        "next_fire_at",
        "id",
        postgresql_where=text("status = 'active' AND next_fire_at IS NOT NULL"),
        sqlite_where=text("status = 'active' AND next_fire_at IS NOT NULL"),
    ),
)

# Every nominal time of a schedule that has passed, with exactly one outcome.
occurrences = Table(
    "occurrences",
    metadata,
    Column("task_id", Id, ForeignKey("tasks.id"), primary_key=True),
    Column("scheduled_for", Timestamp, primary_key=True),
    Column("outcome", String(24), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("run_id", Id),
    Column("created_at", Timestamp, nullable=False),
    CheckConstraint("outcome IN ('ran', 'missed')", name="outcome"),
    CheckConstraint("(outcome = 'ran') = (run_id IS NOT NULL)", name="run_id"),
)


def _run_columns() -> list[Column[Any]]:
    """What is kept of a run, live or finished."""
    return [
        Column("id", Id, primary_key=True),
        Column("task_id", Id, nullable=False),
        Column("task", String(64), nullable=False),
        Column("priority", SmallInteger, nullable=False),
        Column("due_at", Timestamp, nullable=False),
        Column("started_at", Timestamp),
        Column("attempt", Integer, nullable=False),
        Column("payload", Json, nullable=False),
        Column("traceparent", String(55), nullable=False),
        Column("created_by", Id, nullable=False),
        Column("created_at", Timestamp, nullable=False),
        Column("updated_at", Timestamp, nullable=False),
    ]


# What is queued or running. Small and hot: finishing a run moves it to the history. A run is running while it
# has a lease; the lease columns are all set or all null.
runs = Table(
    "runs",
    metadata,
    *_run_columns(),
    Column("crashes", Integer, nullable=False),
    Column("lease_token", Id),
    Column("lease_owner", Id),
    Column("lease_expires_at", Timestamp),
    CheckConstraint(
        "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (lease_expires_at IS NULL)",
        name="lease",
    ),
    # The claim: what nobody holds, most urgent first.
    Index(
        "ix_runs_claim",
        "priority",
        "due_at",
        "id",
        postgresql_where=text("lease_token IS NULL"),
        sqlite_where=text("lease_token IS NULL"),
    ),
    # The reaper: leases that have ended.
    Index(
        "ix_runs_lease_expires_at",
        "lease_expires_at",
        postgresql_where=text("lease_token IS NOT NULL"),
        sqlite_where=text("lease_token IS NOT NULL"),
    ),
    Index("ix_runs_task_id", "task_id", "id"),
)

# What is finished; append-only.
run_history = Table(
    "run_history",
    metadata,
    *_run_columns(),
    Column("status", String(16), nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("duration_ms", BigInteger),
    Column("output", Json),
    Column("error", Json),
    CheckConstraint("status IN ('succeeded', 'failed')", name="status"),
    CheckConstraint("status = 'failed' OR error IS NULL", name="error"),
    Index("ix_run_history_task_id", "task_id", "id"),
    Index("ix_run_history_status", "status", "id"),
    Index("ix_run_history_task_id_status", "task_id", "status", "id"),
)

# What each step of a run did, once: a second record of the same step is not taken.
run_steps = Table(
    "run_steps",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("step_id", String(64), nullable=False),
    Column("uses", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("input_digest", String(64), nullable=False),
    Column("output", Json),
    Column("error", Json),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("span_id", String(16), nullable=False),
    CheckConstraint("status IN ('succeeded', 'failed', 'skipped')", name="status"),
)

tool_servers = Table(
    "tool_servers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("transport", String(8), nullable=False),
    Column("command", Json, nullable=False),
    Column("env", Json, nullable=False),
    Column("url", String(2048), nullable=False),
    Column("timeout_seconds", Integer, nullable=False),
    Column("tools_known_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    CheckConstraint("transport IN ('stdio', 'http')", name="transport"),
)

# What the servers themselves say they offer.
tools = Table(
    "tools",
    metadata,
    Column("address", String(200), primary_key=True),
    Column("server", String(64), ForeignKey("tool_servers.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("input_schema", Json, nullable=False),
)

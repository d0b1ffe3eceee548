"""The tables of the tasks context."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    true,
)

from services.chassis.answers import idempotency_table
from services.chassis.columns import Id, Json, Timestamp, new_metadata
from services.chassis.outbox import outbox_table

metadata = new_metadata()

idempotency_keys = idempotency_table(metadata)

outbox = outbox_table(metadata)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("title", String(200), nullable=False),
    Column("description", String(2000), nullable=False),
    Column("schedule_kind", String(16), nullable=False),
    Column("schedule_expr", String(1000), nullable=False),
    # Where a recurrence rule that names no DTSTART begins.
    Column("schedule_anchor", Timestamp, nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("payload", Json, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("dedupe_key", String(100), nullable=False),
    Column("dedupe_window_seconds", Integer, nullable=False),
    Column("max_retries", SmallInteger, nullable=False),
    Column("backoff_strategy", String(24), nullable=False),
    Column("concurrency_key", String(100), nullable=False),
    Column("misfire", String(16), nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("role", String(50), nullable=False),
    Column("created_by", Id, nullable=False),
    Column("status", String(16), nullable=False),
    Column("paused_at", Timestamp),
    # When the schedule fires, and the nominal time that it fires for: a snooze moves the one and not the other.
    Column("next_fire_at", Timestamp),
    Column("next_scheduled_for", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint("schedule_kind IN ('cron', 'rrule', 'once', 'manual')", name="schedule_kind"),
    CheckConstraint("status IN ('active', 'paused', 'canceled', 'completed')", name="status"),
    CheckConstraint("priority BETWEEN 1 AND 9", name="priority"),
    CheckConstraint("max_retries BETWEEN 0 AND 10", name="max_retries"),
    CheckConstraint("backoff_strategy IN ('exponential_jitter', 'linear', 'fixed')", name="backoff_strategy"),
    CheckConstraint("misfire IN ('skip', 'run_once', 'run_all')", name="misfire"),
    CheckConstraint("overlap IN ('allow', 'skip', 'queue')", name="overlap"),
    CheckConstraint("(status = 'paused') = (paused_at IS NOT NULL)", name="paused_at"),
    CheckConstraint("(next_fire_at IS NULL) = (next_scheduled_for IS NULL)", name="next_scheduled_for"),
    # What the scheduler asks for: active tasks that are due, earliest first.
    Index(
        "ix_tasks_due",
        "next_fire_at",
        "id",
        postgresql_where=text("status = 'active' AND next_fire_at IS NOT NULL"),
        sqlite_where=text("status = 'active' AND next_fire_at IS NOT NULL"),
    ),
    Index("ix_tasks_created_by", "created_by", "id"),
)

# Every nominal time of a schedule that has passed, with exactly one outcome. A row with `through` stands for all
# nominal times from `scheduled_for` to there.
occurrences = Table(
    "occurrences",
    metadata,
    Column("task_id", Id, ForeignKey("tasks.id"), primary_key=True),
    Column("scheduled_for", Timestamp, primary_key=True),
    Column("through", Timestamp),
    Column("outcome", String(24), nullable=False),
    Column("reason", String(200), nullable=False),
    # The run that was queued, or the one that was in the way.
    Column("run_id", Id),
    Column("decided_at", Timestamp, nullable=False),
    CheckConstraint(
        "outcome IN ('ran', 'skipped_overlap', 'missed', 'suppressed_duplicate', 'paused', 'canceled')", name="outcome"
    ),
    CheckConstraint(
        "(outcome IN ('ran', 'skipped_overlap', 'suppressed_duplicate')) = (run_id IS NOT NULL)", name="run_id"
    ),
    CheckConstraint("through > scheduled_for", name="through"),
    # Retention.
    Index("ix_occurrences_decided_at", "decided_at"),
)

# The newest run of each dedupe key of each owner: taking the row is what makes a firing the first of its window.
dedupe_keys = Table(
    "dedupe_keys",
    metadata,
    Column("created_by", Id, primary_key=True),
    Column("dedupe_key", String(100), primary_key=True),
    Column("run_id", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)


def _run_items() -> list[Column[Any] | CheckConstraint]:
    """What is kept of a run, live or finished."""
    return [
        Column("id", Id, primary_key=True),
        Column("task_id", Id),
        Column("task", String(64), nullable=False),
        Column("batch_id", String(64), nullable=False),
        Column("role", String(50), nullable=False),
        Column("agent_id", Id),
        Column("created_by", Id, nullable=False),
        # Reported from outside: no worker here ever gets it.
        Column("reported", Boolean, nullable=False),
        Column("retry_of", Id),
        Column("priority", SmallInteger, nullable=False),
        Column("due_at", Timestamp, nullable=False),
        Column("started_at", Timestamp),
        Column("finished_at", Timestamp),
        Column("duration_ms", BigInteger),
        Column("attempt", Integer, nullable=False),
        Column("retries", SmallInteger, nullable=False),
        Column("max_retries", SmallInteger, nullable=False),
        Column("backoff_strategy", String(24), nullable=False),
        Column("concurrency_key", String(100), nullable=False),
        Column("payload", Json, nullable=False),
        Column("traceparent", String(55), nullable=False),
        Column("error", Json),
        Column("outputs_uri", String(512), nullable=False),
        Column("log_excerpt", String(2000), nullable=False),
        Column("approval_state", String(16)),
        Column("approver", String(128), nullable=False),
        Column("approval_note", String(2000), nullable=False),
        Column("webhook_notified_at", Timestamp),
        Column("created_at", Timestamp, nullable=False),
        Column("updated_at", Timestamp, nullable=False),
        CheckConstraint("approval_state IN ('pending', 'approved', 'rejected', 'cancelled')", name="approval_state"),
    ]


def _partial(name: str, *columns: str, where: str, sqlite_where: str = "", unique: bool = False) -> Index:
    """An index of some rows only; SQLite writes truth values as numbers."""
    return Index(
        name,
        *columns,
        unique=unique,
        postgresql_where=text(where),
        sqlite_where=text(sqlite_where or where),
    )


# What is queued, running or waiting. Small and hot: finishing a run moves it to the history. A run is running while
# it has a lease; the lease columns are all set or all null. One that was reported from outside carries its status.
#
# Of the runs with the same role and concurrency key one is not `blocked`: the one that holds the lease or, when none
# does, the first in line. So the claim never walks through a long line; see store/lines.py.
runs = Table(
    "runs",
    metadata,
    *_run_items(),
    Column("payload_size", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("lease_token", Id),
    Column("lease_owner", Id),
    Column("lease_expires_at", Timestamp),
    Column("reported_status", String(24)),
    Column("paused_at", Timestamp),
    Column("blocked", Boolean, nullable=False),
    Column("cancel_requested_at", Timestamp),
    CheckConstraint(
        "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (lease_expires_at IS NULL)",
        name="lease",
    ),
    CheckConstraint("reported_status IN ('queued', 'running', 'awaiting_approval')", name="reported_status"),
    # The claim: what nobody holds and nothing keeps back, by role and urgency.
    _partial(
        "ix_runs_claim",
        "role",
        "priority",
        "due_at",
        "id",
        where="lease_token IS NULL AND reported_status IS NULL AND paused_at IS NULL AND NOT blocked",
        sqlite_where="lease_token IS NULL AND reported_status IS NULL AND paused_at IS NULL AND blocked = 0",
    ),
    # The reaper: leases that have ended.
    _partial("ix_runs_lease_expires_at", "lease_expires_at", where="lease_token IS NOT NULL"),
    # Never two leases of one key, whatever the code does.
    _partial(
        "uq_runs_concurrency_key",
        "concurrency_key",
        where="lease_token IS NOT NULL AND concurrency_key <> ''",
        unique=True,
    ),
    # The head of each line, and who stands in it.
    _partial(
        "uq_runs_head",
        "role",
        "concurrency_key",
        where="concurrency_key <> '' AND NOT blocked",
        sqlite_where="concurrency_key <> '' AND blocked = 0",
        unique=True,
    ),
    _partial(
        "ix_runs_line",
        "role",
        "concurrency_key",
        "priority",
        "due_at",
        "id",
        where="paused_at IS NULL AND blocked",
        sqlite_where="paused_at IS NULL AND blocked = 1",
    ),
    Index("ix_runs_task_id", "task_id", "id"),
    _partial("ix_runs_batch_id", "batch_id", "id", where="batch_id <> ''"),
    _partial("ix_runs_reported_status", "reported_status", "id", where="reported_status IS NOT NULL"),
)

# What is finished; append-only. On PostgreSQL one partition a month, by the time in the id; what happened before the
# first month, or is said to happen after the last, is in run_history_before and run_history_after.
run_history = Table(
    "run_history",
    metadata,
    *_run_items(),
    Column("status", String(16), nullable=False),
    Column("output", Json),
    CheckConstraint("status IN ('succeeded', 'failed', 'skipped', 'canceled')", name="status"),
    CheckConstraint("finished_at IS NOT NULL", name="finished_at"),
    CheckConstraint("status IN ('failed', 'canceled') OR error IS NULL", name="error"),
    # A page with a filter is a range of one of these for each pair of value and status; see store/pages.py. The
    # duration is for the averages of statistics, which so need no rows.
    *(
        Index(f"ix_run_history_{name}", name, "status", "id", "duration_ms")
        for name in ("task_id", "task", "agent_id", "role")
    ),
    Index("ix_run_history_status", "status", "id", "duration_ms"),
    _partial("ix_run_history_batch_id", "batch_id", "status", "id", where="batch_id <> ''"),
    # The runs that tell something, which are few: what text is searched in besides names.
    _partial("ix_run_history_told", "id", where="log_excerpt <> '' OR error IS NOT NULL"),
    postgresql_partition_by="RANGE (id)",
)

# The names that runs have, or may soon have: collected by triggers, so that a text is searched in each of them once.
run_names = Table("run_names", metadata, Column("task", String(64), primary_key=True))

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

# Who asked for work lately, and of which role; only so that people can be told that nobody does.
workers = Table(
    "workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("role", String(50), primary_key=True),
    Column("agent_id", Id, nullable=False),
    Column("seen_at", Timestamp, nullable=False, index=True),
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
    # With defaults, for services of the version before go on adding servers while the tables are ahead of them.
    Column("description", String(1000), nullable=False, server_default=text("''")),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    Column("scopes", Json, nullable=False, server_default=text("'[]'")),
    # Why a worker could not ask for the tools, since one last could.
    Column("last_error", String(500), nullable=False, server_default=text("''")),
    Column("last_error_at", Timestamp),
    Column("managed_by", String(8), nullable=False, server_default=text("'api'")),
    CheckConstraint("transport IN ('stdio', 'http')", name="transport"),
    CheckConstraint("managed_by IN ('api', 'file')", name="managed_by"),
)

# What the servers themselves say they offer.
tools = Table(
    "tools",
    metadata,
    Column("address", String(200), primary_key=True),
    Column("server", String(64), ForeignKey("tool_servers.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("description", Text, nullable=False),
    Column("input_schema", Json, nullable=False),
    Column("output_schema", Json),
)

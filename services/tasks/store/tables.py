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
    LargeBinary,
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
    # The default is for a Baton of before this column, which may run beside this one while it is replaced.
    Column("event_filter", String(1000), nullable=False, server_default=text("''")),
    # What a task that waits for events is found by: see models/topic.py. Null for every other one.
    Column("topic_key", String(100)),
    # What a task that waits for a condition asks. Null for every other one.
    Column("condition", Json),
    CheckConstraint("schedule_kind IN ('cron', 'rrule', 'once', 'manual', 'event', 'condition')", name="schedule_kind"),
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
    # Which tasks an event is for, and which topics there are.
    Index(
        "ix_tasks_topic",
        "topic_key",
        "schedule_expr",
        "id",
        postgresql_where=text("topic_key IS NOT NULL AND status <> 'canceled'"),
        sqlite_where=text("topic_key IS NOT NULL AND status <> 'canceled'"),
    ),
    # What is there for a role, newest first.
    Index("ix_tasks_role", "role", "id"),
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


def _event_items() -> list[Column[Any]]:
    """What is kept of the event that made a run; its topic and payload are in the run's payload."""
    return [Column("event_id", Id), Column("event_depth", SmallInteger)]


def _handoff_item() -> Column[Any]:
    """The hand-off of a workflow whose work a run is: whoever handed it over is told how the run ends."""
    return Column("handoff_id", Id)


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
# it has a lease; the lease columns are all set or all null. One that was reported from outside carries its status,
# and so does one that awaits an approval.
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
    *_event_items(),
    _handoff_item(),
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
        where="paused_at IS NULL AND reported_status IS NULL AND blocked",
        sqlite_where="paused_at IS NULL AND reported_status IS NULL AND blocked = 1",
    ),
    Index("ix_runs_task_id", "task_id", "id"),
    _partial("ix_runs_batch_id", "batch_id", "id", where="batch_id <> ''"),
    _partial("ix_runs_event_id", "event_id", "id", where="event_id IS NOT NULL"),
    _partial("ix_runs_reported_status", "reported_status", "id", where="reported_status IS NOT NULL"),
)

# Whose runs are kept back because a budget is used up, and of whose runs somebody wants to hear what they use: agents,
# by whom runs are created or leased, and tasks. The sessions service says so, and `told_by` is its last message.
budget_standings = Table(
    "budget_standings",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("subject_id", Id, primary_key=True),
    Column("is_blocked", Boolean, nullable=False),
    Column("blocked_until", Timestamp),
    Column("is_counted", Boolean, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("told_by", Id, nullable=False),
    CheckConstraint("kind IN ('agent', 'task')", name="kind"),
)

# What is finished; append-only. On PostgreSQL one partition a month, by the time in the id; what happened before the
# first month, or is said to happen after the last, is in run_history_before and run_history_after.
run_history = Table(
    "run_history",
    metadata,
    *_run_items(),
    Column("status", String(16), nullable=False),
    Column("output", Json),
    *_event_items(),
    _handoff_item(),
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
    _partial("ix_run_history_event_id", "event_id", "status", "id", where="event_id IS NOT NULL"),
    # The runs that tell something, which are few: what text is searched in besides names.
    _partial("ix_run_history_told", "id", where="log_excerpt <> '' OR error IS NOT NULL"),
    postgresql_partition_by="RANGE (id)",
)

# Which runs have been added, changed or ended lately, as triggers note while somebody watches: `run_watch` says until
# when, and since which position nothing is missing. On PostgreSQL the position is that of the transaction, so nobody
# waits for anybody, and what is behind those that have not ended is not known yet; on SQLite it counts up, from the
# last one in `run_watch`.
run_changes = Table(
    "run_changes",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", Id, primary_key=True),
)
run_watch = Table(
    "run_watch",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("until", Timestamp, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="id"),
)

# The names that runs have, or may soon have: collected by triggers, so that a text is searched in each of them once.
run_names = Table("run_names", metadata, Column("task", String(64), primary_key=True))


def _step_items() -> list[Column[Any] | CheckConstraint]:
    """What is kept of a step, or of one item of it."""
    return [
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
        # This one included.
        Column("tries", SmallInteger, nullable=False, server_default="1"),
        # Where an output is that is too large for the row.
        Column("output_uri", String(512)),
        CheckConstraint("status IN ('succeeded', 'failed', 'skipped')", name="status"),
    ]


# What each step of a run did, once: a second record of the same step is not taken, unless it had failed. Of a step
# with foreach it says how many items there were; what became of each is in run_step_items.
run_steps = Table(
    "run_steps",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("position", Integer, primary_key=True),
    *_step_items(),
    Column("items_total", Integer),
    Column("items_failed", Integer),
    # Whether a file is still wanted.
    _partial("ix_run_steps_output_uri", "output_uri", where="output_uri IS NOT NULL"),
)

run_step_items = Table(
    "run_step_items",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item", Integer, primary_key=True),
    *_step_items(),
    _partial("ix_run_step_items_output_uri", "output_uri", where="output_uri IS NOT NULL"),
)

# What somebody is asked before a run goes on. Of one run one question at most is open.
approvals = Table(
    "approvals",
    metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", Id, nullable=False),
    Column("task_id", Id),
    Column("task", String(64), nullable=False),
    Column("step_id", String(64), nullable=False),
    Column("approver_role", String(50), nullable=False),
    Column("requested_by", Id, nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("action", Json),
    Column("action_uri", String(512)),
    Column("action_digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("expires_at", Timestamp),
    Column("decided_by", Id),
    Column("decided_at", Timestamp),
    Column("note", String(2000), nullable=False),
    # When the approved call was last begun.
    Column("used_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    CheckConstraint("status IN ('pending', 'approved', 'rejected', 'cancelled', 'expired')", name="status"),
    CheckConstraint("(status = 'pending') = (decided_at IS NULL)", name="decided_at"),
    _partial("uq_approvals_pending", "run_id", where="status = 'pending'", unique=True),
    Index("ix_approvals_run_id", "run_id", "id"),
    Index("ix_approvals_status", "status", "id"),
    Index("ix_approvals_task_id", "task_id", "id"),
    # Those whose time is over.
    _partial("ix_approvals_expires_at", "expires_at", where="status = 'pending'"),
    # Whether a file is still wanted.
    _partial("ix_approvals_action_uri", "action_uri", where="action_uri IS NOT NULL"),
)

# Outputs that are too large for a row, by the SHA-256 of their content; `stored_at` is when one was last put there.
files = Table(
    "files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("stored_at", Timestamp, nullable=False, index=True),
)

# What was published, and how far it has come: each event is matched with the tasks in the order of their ids.
events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("topic", String(100), nullable=False),
    Column("payload", Json, nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("origin", String(8), nullable=False),
    Column("source_agent_id", Id),
    Column("published_by", Id),
    # How many events it follows from, each through a run.
    Column("depth", SmallInteger, nullable=False),
    Column("traceparent", String(55), nullable=False),
    Column("replay_of", Id),
    Column("published_at", Timestamp, nullable=False),
    # When the last task was matched with it; until then, which one was the last so far.
    Column("dispatched_at", Timestamp),
    Column("dispatched_to", Id),
    Column("matched_tasks", Integer, nullable=False),
    Column("triggered_runs", Integer, nullable=False),
    Column("is_matched", Boolean, nullable=False),
    # The message of a stream that it was made of.
    Column("source_key", String(160)),
    CheckConstraint("origin IN ('external', 'baton')", name="origin"),
    CheckConstraint("(origin = 'external') = (source_agent_id IS NOT NULL)", name="source_agent_id"),
    # The dispatcher: what is not matched with all tasks yet.
    _partial("ix_events_undispatched", "id", where="dispatched_at IS NULL"),
    # Lists: by topic, by whether a task matched, by both.
    Index("ix_events_topic", "topic", "is_matched", "id"),
    Index("ix_events_is_matched", "is_matched", "id"),
    # The stream's consumer: which messages are events already. None becomes two.
    _partial("ix_events_source_key", "source_key", where="source_key IS NOT NULL", unique=True),
)

# What each event did to each task whose topic it matched, exactly once.
event_deliveries = Table(
    "event_deliveries",
    metadata,
    Column("event_id", Id, ForeignKey("events.id"), primary_key=True),
    Column("task_id", Id, ForeignKey("tasks.id"), primary_key=True),
    Column("outcome", String(24), nullable=False),
    Column("reason", String(400), nullable=False),
    # The run that was queued, or the one that was in the way.
    Column("run_id", Id),
    Column("decided_at", Timestamp, nullable=False),
    CheckConstraint(
        "outcome IN ('ran', 'filtered', 'filter_error', 'suppressed_duplicate', 'skipped_overlap', 'paused', "
        "'depth_exceeded')",
        name="outcome",
    ),
    CheckConstraint(
        "(outcome IN ('ran', 'skipped_overlap', 'suppressed_duplicate')) = (run_id IS NOT NULL)", name="run_id"
    ),
    # The last event of a task.
    Index("ix_event_deliveries_task_id", "task_id", "event_id"),
)

# Where events are sent. The secrets are here as they are, for every request is signed with them: no read answers them.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("url", String(2048), nullable=False),
    Column("description", String(500), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("secret", String(128), nullable=False),
    # What signed before the last rotation, and until when it does so, too.
    Column("previous_secret", String(128)),
    Column("previous_secret_until", Timestamp),
    Column("created_by", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    # The agent whose `webhook_url` it is, and the message that told of it last.
    Column("agent_id", Id),
    Column("told_by", Id),
    CheckConstraint("(previous_secret IS NULL) = (previous_secret_until IS NULL)", name="previous_secret"),
    Index(
        "uq_webhooks_agent_id",
        "agent_id",
        unique=True,
        postgresql_where=text("agent_id IS NOT NULL"),
        sqlite_where=text("agent_id IS NOT NULL"),
    ),
)

# The topics, and patterns of topics, that a webhook is for, in the order in which they were given.
webhook_topics = Table(
    "webhook_topics",
    metadata,
    Column("webhook_id", Id, ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    Column("pattern", String(100), nullable=False),
    # See models/topic.py.
    Column("topic_key", String(100), nullable=False),
    # Which webhooks an event is for, and whether there is any.
    Index("ix_webhook_topics_topic_key", "topic_key", "pattern"),
)

# What is, was or could not be sent to a webhook: each event once, made in the transaction in which the event has been
# matched with all tasks. No key leads to the webhook, so that nobody who publishes waits for whoever deletes one.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("webhook_id", Id, nullable=False),
    Column("event_id", Id, ForeignKey("events.id"), nullable=False),
    Column("topic", String(100), nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    # When the next attempt is due. While somebody makes one it is the end of the lease: then it is due again.
    Column("next_attempt_at", Timestamp),
    Column("lease_token", Id),
    Column("last_status", SmallInteger),
    Column("last_error", String(500), nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("delivered_at", Timestamp),
    CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status"),
    CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="next_attempt_at"),
    CheckConstraint("lease_token IS NULL OR status = 'pending'", name="lease_token"),
    CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at"),
    # Never twice; and what goes with an event.
    Index("uq_webhook_deliveries_event_id", "event_id", "webhook_id", unique=True),
    # What is due of each webhook.
    _partial("ix_webhook_deliveries_due", "webhook_id", "next_attempt_at", "id", where="status = 'pending'"),
    # Lists.
    Index("ix_webhook_deliveries_webhook_id", "webhook_id", "id"),
    Index("ix_webhook_deliveries_status", "webhook_id", "status", "id"),
)

# How far the probing of each task that waits, or has waited, for a condition has come. The lease columns are all set or
# all null; `next_probe_at` is then when the lease ends, so that the probe of a worker that has died is due again.
conditions = Table(
    "conditions",
    metadata,
    Column("task_id", Id, ForeignKey("tasks.id"), primary_key=True),
    # Null while nothing is to be probed: the task is paused, canceled, or of another kind by now.
    Column("next_probe_at", Timestamp),
    # How many there were: the number of the last one.
    Column("evaluations", BigInteger, nullable=False),
    # How many of them there were before what is asked now was.
    Column("evaluations_before", BigInteger, nullable=False),
    Column("leased_at", Timestamp),
    Column("lease_token", Id),
    Column("lease_owner", Id),
    # What the expression was last, whatever has failed since; null when nobody knows.
    Column("last_holds", Boolean),
    Column("last_fired_at", Timestamp),
    CheckConstraint(
        "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (leased_at IS NULL)", name="lease"
    ),
    # What is due.
    _partial("ix_conditions_next_probe_at", "next_probe_at", where="next_probe_at IS NOT NULL"),
)

# What conditions told lately: the newest of each task.
evaluations = Table(
    "evaluations",
    metadata,
    Column("task_id", Id, ForeignKey("tasks.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("evaluated_at", Timestamp, nullable=False),
    Column("holds", Boolean),
    Column("excerpt", String(1024), nullable=False),
    Column("result_digest", String(64), nullable=False),
    Column("error", String(2000), nullable=False),
    # What became of the firing, as of any nominal time; null when it did not fire.
    Column("outcome", String(24)),
    Column("run_id", Id),
    CheckConstraint("(holds IS NULL) = (error <> '')", name="error"),
    CheckConstraint("(outcome IS NULL) = (run_id IS NULL)", name="run_id"),
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

"""Events, what they did to the tasks that wait for them, and the runs that they made."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0005"
down_revision = "0004"

_KINDS_BEFORE = "'cron', 'rrule', 'once', 'manual'"
_KINDS = f"{_KINDS_BEFORE}, 'event'"


def upgrade() -> None:
    _allow_events()
    op.add_column("tasks", sa.Column("event_filter", sa.String(1000), nullable=False, server_default=sa.text("''")))
    op.add_column("tasks", sa.Column("topic_key", sa.String(100)))
    listening = "topic_key IS NOT NULL AND status <> 'canceled'"
    _partial("ix_tasks_topic", "tasks", ["topic_key", "schedule_expr", "id"], listening)
    for table in ("runs", "run_history"):
        op.add_column(table, sa.Column("event_id", Id))
        op.add_column(table, sa.Column("event_depth", sa.SmallInteger()))
    _partial("ix_runs_event_id", "runs", ["event_id", "id"], "event_id IS NOT NULL")
    _partial("ix_run_history_event_id", "run_history", ["event_id", "status", "id"], "event_id IS NOT NULL")
    _create_events()
    _create_event_deliveries()


def _allow_events() -> None:
    """Adds a kind of schedule to those that a task may have."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("ck_tasks_schedule_kind", "tasks")
        op.create_check_constraint(op.f("ck_tasks_schedule_kind"), "tasks", f"schedule_kind IN ({_KINDS})")
        return
    # SQLite cannot change a check. The table is made anew as it is written down, whatever has come into it, with its
    # indexes and triggers; foreign keys are not checked meanwhile, and find it again by its name.
    connection = op.get_bind()
    (table,) = connection.scalars(sa.text("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'tasks'"))
    if _KINDS_BEFORE not in table:
        raise AssertionError(f"tasks has no check of these kinds: {table}")
    beside = connection.scalars(
        sa.text("SELECT sql FROM sqlite_schema WHERE type <> 'table' AND tbl_name = 'tasks' AND sql IS NOT NULL")
    ).all()
    _, columns = table.replace(_KINDS_BEFORE, _KINDS).split("(", 1)
    op.execute(sa.text(_literal(f"CREATE TABLE new_tasks ({columns}")))
    op.execute("INSERT INTO new_tasks SELECT * FROM tasks")
    op.execute("DROP TABLE tasks")
    op.execute("ALTER TABLE new_tasks RENAME TO tasks")
    for statement in beside:
        op.execute(sa.text(_literal(statement)))


def _literal(statement: str) -> str:
    """A statement in which a colon begins no parameter."""
    return statement.replace(":", r"\:")


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", Id, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(8), nullable=False),
        sa.Column("source_agent_id", Id),
        sa.Column("published_by", Id),
        sa.Column("depth", sa.SmallInteger(), nullable=False),
        sa.Column("traceparent", sa.String(55), nullable=False),
        sa.Column("replay_of", Id),
        sa.Column("published_at", Timestamp, nullable=False),
        sa.Column("dispatched_at", Timestamp),
        sa.Column("dispatched_to", Id),
        sa.Column("matched_tasks", sa.Integer(), nullable=False),
        sa.Column("triggered_runs", sa.Integer(), nullable=False),
        sa.Column("is_matched", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        _check("events", "origin", "origin IN ('external', 'baton')"),
        _check("events", "source_agent_id", "(origin = 'external') = (source_agent_id IS NOT NULL)"),
    )
    _partial("ix_events_undispatched", "events", ["id"], "dispatched_at IS NULL")
    op.create_index("ix_events_topic", "events", ["topic", "is_matched", "id"])
    op.create_index("ix_events_is_matched", "events", ["is_matched", "id"])


def _create_event_deliveries() -> None:
    outcomes = "'ran', 'filtered', 'filter_error', 'suppressed_duplicate', 'skipped_overlap', 'paused', "
    with_run = "'ran', 'skipped_overlap', 'suppressed_duplicate'"
    op.create_table(
        "event_deliveries",
        sa.Column("event_id", Id, nullable=False),
        sa.Column("task_id", Id, nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
        sa.Column("run_id", Id),
        sa.Column("decided_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "task_id", name="pk_event_deliveries"),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name="fk_event_deliveries_event_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_event_deliveries_task_id"),
        _check("event_deliveries", "outcome", f"outcome IN ({outcomes}'depth_exceeded')"),
        _check("event_deliveries", "run_id", f"(outcome IN ({with_run})) = (run_id IS NOT NULL)"),
    )
    op.create_index("ix_event_deliveries_task_id", "event_deliveries", ["task_id", "event_id"])


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    """An index of some rows only."""
    op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))

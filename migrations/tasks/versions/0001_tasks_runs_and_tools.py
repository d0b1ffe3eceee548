"""Tasks, their occurrences and runs, tool servers and their tools."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_idempotency_keys()
    _create_tasks()
    _create_occurrences()
    _create_runs()
    _create_run_history()
    _create_run_steps()
    _create_tools()


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("method", sa.String(200), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", Id, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("description", sa.String(2000), nullable=False),
        sa.Column("schedule_kind", sa.String(16), nullable=False),
        sa.Column("schedule_expr", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("next_fire_at", Timestamp),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.CheckConstraint("schedule_kind IN ('cron', 'once', 'manual')", name=op.f("ck_tasks_schedule_kind")),
        sa.CheckConstraint("status IN ('active', 'paused', 'canceled')", name=op.f("ck_tasks_status")),
        sa.CheckConstraint("priority BETWEEN 1 AND 9", name=op.f("ck_tasks_priority")),
    )
    due = sa.text("status = 'active' AND next_fire_at IS NOT NULL")
    op.create_index("ix_tasks_due", "tasks", ["next_fire_at", "id"], postgresql_where=due, sqlite_where=due)


def _create_occurrences() -> None:
    op.create_table(
        "occurrences",
        sa.Column("task_id", Id, nullable=False),
        sa.Column("scheduled_for", Timestamp, nullable=False),
        sa.Column("outcome", sa.String(24), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
        sa.Column("run_id", Id),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "scheduled_for", name="pk_occurrences"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_occurrences_task_id"),
        sa.CheckConstraint("outcome IN ('ran', 'missed')", name=op.f("ck_occurrences_outcome")),
        sa.CheckConstraint("(outcome = 'ran') = (run_id IS NOT NULL)", name=op.f("ck_occurrences_run_id")),
    )


def _run_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", Id, nullable=False),
        sa.Column("task_id", Id, nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", Timestamp, nullable=False),
        sa.Column("started_at", Timestamp),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("traceparent", sa.String(55), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
    ]


def _create_runs() -> None:
    op.create_table(
        "runs",
        *_run_columns(),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("lease_token", Id),
        sa.Column("lease_owner", Id),
        sa.Column("lease_expires_at", Timestamp),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (lease_expires_at IS NULL)",
            name=op.f("ck_runs_lease"),
        ),
    )
    free, held = sa.text("lease_token IS NULL"), sa.text("lease_token IS NOT NULL")
    claim = ["priority", "due_at", "id"]
    op.create_index("ix_runs_claim", "runs", claim, postgresql_where=free, sqlite_where=free)
    op.create_index("ix_runs_lease_expires_at", "runs", ["lease_expires_at"], postgresql_where=held, sqlite_where=held)
    op.create_index("ix_runs_task_id", "runs", ["task_id", "id"])


def _create_run_history() -> None:
    op.create_table(
        "run_history",
        *_run_columns(),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finished_at", Timestamp, nullable=False),
        sa.Column("duration_ms", sa.BigInteger()),
        sa.Column("output", Json),
        sa.Column("error", Json),
        sa.PrimaryKeyConstraint("id", name="pk_run_history"),
        sa.CheckConstraint("status IN ('succeeded', 'failed')", name=op.f("ck_run_history_status")),
        sa.CheckConstraint("status = 'failed' OR error IS NULL", name=op.f("ck_run_history_error")),
    )
    op.create_index("ix_run_history_task_id", "run_history", ["task_id", "id"])
    op.create_index("ix_run_history_status", "run_history", ["status", "id"])
    op.create_index("ix_run_history_task_id_status", "run_history", ["task_id", "status", "id"])


def _create_run_steps() -> None:
    op.create_table(
        "run_steps",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(64), nullable=False),
        sa.Column("uses", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("input_digest", sa.String(64), nullable=False),
        sa.Column("output", Json),
        sa.Column("error", Json),
        sa.Column("started_at", Timestamp, nullable=False),
        sa.Column("finished_at", Timestamp, nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("span_id", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_run_steps"),
        sa.CheckConstraint("status IN ('succeeded', 'failed', 'skipped')", name=op.f("ck_run_steps_status")),
    )


def _create_tools() -> None:
    op.create_table(
        "tool_servers",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("transport", sa.String(8), nullable=False),
        sa.Column("command", Json, nullable=False),
        sa.Column("env", Json, nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("tools_known_at", Timestamp),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tool_servers"),
        sa.CheckConstraint("transport IN ('stdio', 'http')", name=op.f("ck_tool_servers_transport")),
    )
    op.create_table(
        "tools",
        sa.Column("address", sa.String(200), nullable=False),
        sa.Column("server", sa.String(64), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("input_schema", Json, nullable=False),
        sa.PrimaryKeyConstraint("address", name="pk_tools"),
        sa.ForeignKeyConstraint(["server"], ["tool_servers.name"], name="fk_tools_server", ondelete="CASCADE"),
    )
    op.create_index("ix_tools_server", "tools", ["server"])

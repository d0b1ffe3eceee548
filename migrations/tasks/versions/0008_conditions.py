"""Conditions: tasks that fire on what a tool answers, and what it answered lately."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0008"
down_revision = "0007"

_KINDS_BEFORE = "'cron', 'rrule', 'once', 'manual', 'event'"
_KINDS = f"{_KINDS_BEFORE}, 'condition'"


def upgrade() -> None:
    _allow_conditions()
    op.add_column("tasks", sa.Column("condition", Json))
    _create_conditions()
    _create_evaluations()


def _allow_conditions() -> None:
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


def _create_conditions() -> None:
    op.create_table(
        "conditions",
        sa.Column("task_id", Id, nullable=False),
        sa.Column("next_probe_at", Timestamp),
        sa.Column("evaluations", sa.BigInteger(), nullable=False),
        sa.Column("evaluations_before", sa.BigInteger(), nullable=False),
        sa.Column("leased_at", Timestamp),
        sa.Column("lease_token", Id),
        sa.Column("lease_owner", Id),
        sa.Column("last_holds", sa.Boolean()),
        sa.Column("last_fired_at", Timestamp),
        sa.PrimaryKeyConstraint("task_id", name="pk_conditions"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_conditions_task_id"),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_owner IS NULL) AND (lease_token IS NULL) = (leased_at IS NULL)",
            name=op.f("ck_conditions_lease"),
        ),
    )
    op.create_index(
        "ix_conditions_next_probe_at",
        "conditions",
        ["next_probe_at"],
        postgresql_where=sa.text("next_probe_at IS NOT NULL"),
        sqlite_where=sa.text("next_probe_at IS NOT NULL"),
    )


def _create_evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("task_id", Id, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("evaluated_at", Timestamp, nullable=False),
        sa.Column("holds", sa.Boolean()),
        sa.Column("excerpt", sa.String(1024), nullable=False),
        sa.Column("result_digest", sa.String(64), nullable=False),
        sa.Column("error", sa.String(2000), nullable=False),
        sa.Column("outcome", sa.String(24)),
        sa.Column("run_id", Id),
        sa.PrimaryKeyConstraint("task_id", "number", name="pk_evaluations"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_evaluations_task_id"),
        sa.CheckConstraint("(holds IS NULL) = (error <> '')", name=op.f("ck_evaluations_error")),
        sa.CheckConstraint("(outcome IS NULL) = (run_id IS NULL)", name=op.f("ck_evaluations_run_id")),
    )

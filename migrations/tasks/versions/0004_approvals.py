"""Approvals, and lines that pass over runs that await one."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", Id, nullable=False),
        sa.Column("run_id", Id, nullable=False),
        sa.Column("task_id", Id),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("step_id", sa.String(64), nullable=False),
        sa.Column("approver_role", sa.String(50), nullable=False),
        sa.Column("requested_by", Id, nullable=False),
        sa.Column("reason", sa.String(2000), nullable=False),
        sa.Column("action", Json),
        sa.Column("action_uri", sa.String(512)),
        sa.Column("action_digest", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("expires_at", Timestamp),
        sa.Column("decided_by", Id),
        sa.Column("decided_at", Timestamp),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("used_at", Timestamp),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        sa.CheckConstraint(
            "status IN ('pending', 'approved', 'rejected', 'cancelled', 'expired')", name=op.f("ck_approvals_status")
        ),
        sa.CheckConstraint("(status = 'pending') = (decided_at IS NULL)", name=op.f("ck_approvals_decided_at")),
    )
    op.create_index("ix_approvals_run_id", "approvals", ["run_id", "id"])
    op.create_index("ix_approvals_status", "approvals", ["status", "id"])
    op.create_index("ix_approvals_task_id", "approvals", ["task_id", "id"])
    _partial("uq_approvals_pending", "run_id", "status = 'pending'", unique=True)
    _partial("ix_approvals_expires_at", "expires_at", "status = 'pending'")
    _partial("ix_approvals_action_uri", "action_uri", "action_uri IS NOT NULL")
    _ask_about_reported_runs()
    _replace_line_index()


def _ask_about_reported_runs() -> None:
    """What reporters have wait for approval now is in the inbox, too."""
    op.execute(
        "INSERT INTO approvals (id, run_id, task_id, task, step_id, approver_role, requested_by, reason,"
        " action_digest, status, note, created_at)"
        " SELECT id, id, task_id, task, '', '', created_by, '', '', 'pending', '', updated_at"
        " FROM runs WHERE reported_status = 'awaiting_approval'"
    )


def _partial(name: str, column: str, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, "approvals", [column], unique=unique, postgresql_where=condition, sqlite_where=condition)


def _replace_line_index() -> None:
    """Who awaits an approval stands in no line; code of before still finds all that it looks for."""
    op.drop_index("ix_runs_line", table_name="runs")
    op.create_index(
        "ix_runs_line",
        "runs",
        ["role", "concurrency_key", "priority", "due_at", "id"],
        postgresql_where=sa.text("paused_at IS NULL AND reported_status IS NULL AND blocked"),
        sqlite_where=sa.text("paused_at IS NULL AND reported_status IS NULL AND blocked = 1"),
    )

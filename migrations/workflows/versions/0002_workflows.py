"""Workflows, with their results, hand-offs and events, answers to repeated requests, and the outbox."""

import sqlalchemy as sa
from alembic import op

from migrations.types import Id, Json, Timestamp

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("templates", sa.Column("deleted_at", Timestamp))
    _create_idempotency_keys()
    _create_outbox()
    _create_workflows()
    _create_phase_results()
    _create_handoffs()
    _create_events()


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


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("topic", sa.String(100), nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )


def _create_workflows() -> None:
    table = "workflows"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("build_id", sa.String(100), nullable=False),
        sa.Column("project_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("template", sa.String(64), nullable=False),
        sa.Column("template_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=False),
        sa.Column("requirements", Json, nullable=False),
        sa.Column("metadata", Json, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("started_by", Id, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.Column("completed_at", Timestamp),
        sa.Column("deadline", Timestamp),
        sa.Column("is_overdue", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
        sa.ForeignKeyConstraint(
            ["template", "template_version"], ["templates.name", "templates.version"], name="fk_workflows_template"
        ),
        sa.CheckConstraint(
            "status IN ('in_progress', 'complete', 'failed', 'canceled')", name=op.f("ck_workflows_status")
        ),
        sa.CheckConstraint(
            "(completed_at IS NULL) = (status IN ('in_progress', 'failed'))", name=op.f("ck_workflows_completed_at")
        ),
    )
    op.create_index("uq_workflows_build_id", table, ["build_id"], unique=True)
    for column in ("project_id", "status", "state"):
        op.create_index(f"ix_workflows_{column}", table, [column, "id"])
    for name, column, condition, on_sqlite in (
        ("ix_workflows_overdue", "id", "is_overdue", "is_overdue = 1"),
        ("ix_workflows_deadline", "deadline", "NOT is_overdue", "is_overdue = 0"),
    ):
        op.create_index(name, table, [column], postgresql_where=sa.text(condition), sqlite_where=sa.text(on_sqlite))


def _create_phase_results() -> None:
    table = "phase_results"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("workflow_id", Id, nullable=False),
        sa.Column("phase", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("agent_id", Id, nullable=False),
        sa.Column("result", Json, nullable=False),
        sa.Column("completed_at", Timestamp, nullable=False),
        sa.Column("superseded_at", Timestamp),
        sa.PrimaryKeyConstraint("id", name="pk_phase_results"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="fk_phase_results_workflow_id"),
    )
    op.create_index("uq_phase_results_attempt", table, ["workflow_id", "phase", "attempt"], unique=True)
    where = sa.text("superseded_at IS NULL")
    op.create_index(
        "uq_phase_results_current",
        table,
        ["workflow_id", "phase"],
        unique=True,
        postgresql_where=where,
        sqlite_where=where,
    )


def _create_handoffs() -> None:
    table = "handoffs"
    op.create_table(
        table,
        sa.Column("id", Id, nullable=False),
        sa.Column("workflow_id", Id, nullable=False),
        sa.Column("from_role", sa.String(64), nullable=False),
        sa.Column("to_role", sa.String(64), nullable=False),
        sa.Column("from_state", sa.String(64), nullable=False),
        sa.Column("to_state", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_handoffs"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="fk_handoffs_workflow_id"),
        sa.CheckConstraint("kind IN ('forward', 'retry', 'error', 'recover')", name=op.f("ck_handoffs_kind")),
    )
    op.create_index("ix_handoffs_workflow_id", table, ["workflow_id", "id"])


def _create_events() -> None:
    op.create_table(
        "workflow_events",
        sa.Column("workflow_id", Id, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("event_type", sa.String(32), nullable=False),
        sa.Column("triggered_by", Id, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("from_state", sa.String(64), nullable=False),
        sa.Column("to_state", sa.String(64), nullable=False),
        sa.Column("data", Json, nullable=False),
        sa.Column("occurred_at", Timestamp, nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", "sequence", name="pk_workflow_events"),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="fk_workflow_events_workflow_id"),
    )

"""The tables of the workflows context."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from services.chassis.answers import idempotency_table
from services.chassis.columns import Id, Json, Timestamp, new_metadata
from services.chassis.outbox import outbox_table

metadata = new_metadata()

idempotency_keys = idempotency_table(metadata)

outbox = outbox_table(metadata)

# Only ever inserted into: a changed template is a new version.
templates = Table(
    "templates",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # Set of all versions of a name together: nothing is started by them any more.
    Column("deleted_at", Timestamp),
)


def _index_where(condition: str, on_sqlite: str, name: str, column: str) -> Index:
    """An index of some rows only; SQLite writes truth values as numbers."""
    return Index(name, column, postgresql_where=text(condition), sqlite_where=text(on_sqlite))


workflows = Table(
    "workflows",
    metadata,
    Column("id", Id, primary_key=True),
    Column("build_id", String(100), nullable=False),
    Column("project_id", String(100), nullable=False),
    Column("user_id", String(100), nullable=False),
    Column("template", String(64), nullable=False),
    Column("template_version", Integer, nullable=False),
    Column("state", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("retries", Integer, nullable=False),
    Column("error_reason", Text, nullable=False),
    Column("requirements", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("started_by", Id, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("completed_at", Timestamp),
    Column("deadline", Timestamp),
    Column("is_overdue", Boolean, nullable=False),
    # Of the last change: the trace of the next one has a link to it.
    Column("traceparent", String(55), nullable=False, server_default=text("''")),
    ForeignKeyConstraint(["template", "template_version"], ["templates.name", "templates.version"]),
    CheckConstraint("status IN ('in_progress', 'complete', 'failed', 'canceled')", name="status"),
    CheckConstraint("(completed_at IS NULL) = (status IN ('in_progress', 'failed'))", name="completed_at"),
    Index("uq_workflows_build_id", "build_id", unique=True),
    # One for each filter, newest first.
    Index("ix_workflows_project_id", "project_id", "id"),
    Index("ix_workflows_status", "status", "id"),
    Index("ix_workflows_state", "state", "id"),
    # What is overdue, and what is to be noticed when it becomes it.
    _index_where("is_overdue", "is_overdue = 1", "ix_workflows_overdue", "id"),
    _index_where("NOT is_overdue", "is_overdue = 0", "ix_workflows_deadline", "deadline"),
)

# Every time that a phase was done. The results that count are those that are not superseded, one of each phase.
phase_results = Table(
    "phase_results",
    metadata,
    Column("id", Id, primary_key=True),
    Column("workflow_id", Id, ForeignKey("workflows.id"), nullable=False),
    Column("phase", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("role", String(64), nullable=False),
    Column("agent_id", Id, nullable=False),
    Column("result", Json, nullable=False),
    Column("completed_at", Timestamp, nullable=False),
    Column("superseded_at", Timestamp),
    Index("uq_phase_results_attempt", "workflow_id", "phase", "attempt", unique=True),
    Index(
        "uq_phase_results_current",
        "workflow_id",
        "phase",
        unique=True,
        postgresql_where=text("superseded_at IS NULL"),
        sqlite_where=text("superseded_at IS NULL"),
    ),
)

handoffs = Table(
    "handoffs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("workflow_id", Id, ForeignKey("workflows.id"), nullable=False),
    Column("from_role", String(64), nullable=False),
    Column("to_role", String(64), nullable=False),
    Column("from_state", String(64), nullable=False),
    Column("to_state", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("status", String(16), nullable=False, server_default=text("'accepted'")),
    # How the workflow stood in the state that was left.
    Column("came_from", String(16), nullable=False, server_default=text("'in_progress'")),
    Column("ack_deadline", Timestamp),
    Column("decided_by", Id),
    Column("decided_at", Timestamp),
    Column("reason", Text, nullable=False, server_default=text("''")),
    CheckConstraint("kind IN ('forward', 'retry', 'error', 'recover')", name="kind"),
    Index("ix_handoffs_workflow_id", "workflow_id", "id"),
    # One for each filter, newest first.
    Index("ix_handoffs_status", "status", "id"),
    Index("ix_handoffs_to_role", "to_role", "id"),
    # What nobody has accepted in time.
    Index(
        "ix_handoffs_ack_deadline",
        "ack_deadline",
        postgresql_where=text("status = 'offered'"),
        sqlite_where=text("status = 'offered'"),
    ),
)

# One row for each version of a workflow: its state is what its last event says.
workflow_events = Table(
    "workflow_events",
    metadata,
    Column("workflow_id", Id, ForeignKey("workflows.id"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_type", String(32), nullable=False),
    Column("triggered_by", Id, nullable=False),
    Column("role", String(64), nullable=False),
    Column("from_state", String(64), nullable=False),
    Column("to_state", String(64), nullable=False),
    Column("data", Json, nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
    Column("trace_id", String(32), nullable=False, server_default=text("''")),
)

"""Telling workflows what the runs have come to that they have asked for."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis import outbox, telemetry
from services.chassis.clock import StoppedClock
from services.tasks.store.rows import error_from_json
from services.tasks.store.tables import outbox as outbox_table
from services.tasks.store.tables import run_history

REPORTED = [run_history.c[name] for name in ("id", "handoff_id", "agent_id", "created_by", "status", "output", "error")]
"""What is told of a run that has ended."""


def tell_reports(connection: Connection, ended: Sequence[Row[Any]], now: datetime) -> None:
    """Publishes how runs of hand-offs have ended."""
    reports = [_report(row) for row in ended]
    outbox.publish_all(connection, outbox_table, outbox.REPORT, reports, StoppedClock(now))


def _report(row: Row[Any]) -> dict[str, Any]:
    error = error_from_json(row.error)
    return {
        "id": row.handoff_id,
        "run_id": row.id,
        # Where nobody has leased it, whoever has asked for it.
        "agent_id": row.agent_id or row.created_by,
        "status": row.status,
        "output": row.output or {},
        "error": error.message if error else "",
        "traceparent": telemetry.traceparent(),
    }

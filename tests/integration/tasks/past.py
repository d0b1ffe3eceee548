"""Runs that are over, put straight into the history, and what tests ask of it."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from sqlalchemy import Connection, insert

from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.running import NO_TRACE, Tasks

AT = datetime(2026, 5, 12, 10, 15, 30, 120000, tzinfo=UTC)

_AT_ONCE = 500


def past_run(task: str = "a task", **changes: Any) -> dict[str, Any]:
    """A row of the history: a run that succeeded, unless `changes` say otherwise."""
    fields: dict[str, Any] = {
        "id": new_id(), "task_id": new_id(), "task": task, "batch_id": "", "role": "", "agent_id": None,
        "created_by": new_id(), "reported": False, "retry_of": None, "priority": 5, "due_at": AT, "started_at": AT,
        "finished_at": AT, "duration_ms": 0, "attempt": 1, "retries": 0, "max_retries": 3,
        "backoff_strategy": "fixed", "concurrency_key": "", "payload": {"pipeline": []}, "traceparent": NO_TRACE,
        "error": None, "outputs_uri": "", "log_excerpt": "", "approval_state": None, "approver": "",
        "approval_note": "", "webhook_notified_at": None, "created_at": AT, "updated_at": AT, "status": "succeeded",
        "output": None, "event_id": None,
    }  # fmt: skip
    return fields | changes


def failed_run(message: str, **changes: Any) -> dict[str, Any]:
    """A row of the history: a run that failed."""
    error = {"class": "tool", "message": message, "retryable": False, "step_id": ""}
    return past_run(**{"status": "failed", "error": error} | changes)


async def add_past_runs(tasks: Tasks, rows: list[dict[str, Any]]) -> list[str]:
    """Stores rows of the history; answers their ids.

    Piece by piece: while many are made ready on a busy machine, the transaction stands still, and PostgreSQL ends it.
    """
    for start in range(0, len(rows), _AT_ONCE):
        await tasks.database.transact(partial(_add_runs, rows[start : start + _AT_ONCE]))
    return [row["id"] for row in rows]


def _add_runs(rows: list[dict[str, Any]], connection: Connection, clock: Clock) -> None:
    connection.execute(insert(tables.run_history), rows)


async def add_past_steps(tasks: Tasks, run_ids: list[str], each: int) -> None:
    """Stores steps of runs that are over."""

    def add_steps(connection: Connection, clock: Clock) -> None:
        step = {
            "step_id": "a", "uses": "echo.test", "status": "succeeded", "attempt": 1, "input_digest": "",
            "output": None, "error": None, "started_at": AT,
            "finished_at": AT, "duration_ms": 1, "span_id": "",
        }  # fmt: skip
        rows = [step | {"run_id": run_id, "position": position} for run_id in run_ids for position in range(each)]
        connection.execute(insert(tables.run_steps), rows)

    await tasks.database.transact(add_steps)


def fatal(message: str = "the input is not valid") -> run_pb2.RunError:
    """A failure that is not tried again."""
    return run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_VALIDATION}, message=message, step_id="step_1")


async def listed(tasks: Tasks, **filters: Any) -> list[str]:
    """The ids of all runs that pass the filters, page by page."""
    request, found = ListRunsRequest(**filters), []
    while True:
        page = await tasks.runs.ListRuns(request)
        found += [run.id for run in page.items]
        if not page.has_more:
            return found
        request.cursor = page.next_cursor

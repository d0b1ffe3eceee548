"""Database rows to models and back, where several queries need the same."""

from typing import Any

from sqlalchemy import Row

from services.tasks.models.run import ErrorClass, RunError, RunStep, StepItems, StepStatus


def error_to_json(error: RunError | None) -> dict[str, Any] | None:
    """An error as it is stored."""
    if error is None:
        return None
    return {
        "class": error.error_class.value,
        "message": error.message,
        "retryable": error.retryable,
        "step_id": error.step_id,
    }


def error_from_json(stored: dict[str, Any] | None) -> RunError | None:
    """A stored error."""
    if stored is None:
        return None
    return RunError(ErrorClass(stored["class"]), stored["message"], stored["retryable"], stored["step_id"])


def step_from_row(row: Row[Any]) -> RunStep:
    """A row of run_steps."""
    total = row.items_total
    return RunStep(**_step(row), items=None if total is None else StepItems(total, row.items_failed))


def item_from_row(row: Row[Any]) -> RunStep:
    """A row of run_step_items."""
    return RunStep(**_step(row), item=row.item)


def _step(row: Row[Any]) -> dict[str, Any]:
    return {
        "position": row.position,
        "id": row.step_id,
        "uses": row.uses,
        "status": StepStatus(row.status),
        "attempt": row.attempt,
        "input_digest": row.input_digest,
        "output": row.output,
        "error": error_from_json(row.error),
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "duration_ms": row.duration_ms,
        "span_id": row.span_id,
        "tries": row.tries,
        "output_uri": row.output_uri or "",
    }

"""Runs and their steps."""

from collections.abc import Iterable

from baton.tasks.v1 import run_pb2

from services.chassis.structs import to_struct, to_value
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.run import LIVE, Run, RunError, RunStatus, RunStep, StepItems, StepStatus


def run_status(value: run_pb2.RunStatus.ValueType) -> RunStatus:
    return from_enum(RunStatus, run_pb2.RunStatus, value)


def run_message(run: Run) -> run_pb2.Run:
    """A run as it is answered."""
    return run_pb2.Run(
        id=run.id,
        task_id=run.task_id or "",
        task=run.task,
        status=to_enum(run.status, run_pb2.RunStatus),
        priority=run.priority,
        due_at=to_timestamp(run.due_at),
        started_at=to_timestamp(run.started_at),
        finished_at=to_timestamp(run.finished_at),
        duration_ms=run.duration_ms,
        attempt=run.attempt,
        inputs=None if run.inputs is None else to_struct(run.inputs),
        output=None if run.output is None else to_struct(run.output),
        error=_error_message(run.error),
        trace_id=run.trace_id,
        batch_id=run.batch_id,
        role=run.role,
        agent_id=run.agent_id or "",
        created_by=run.created_by,
        retry_of=run.retry_of,
        max_retries=run.max_retries,
        retries=run.retries,
        concurrency_key=run.concurrency_key,
        success=None if run.status in LIVE else run.status is RunStatus.SUCCEEDED,
        outputs_uri=run.outputs_uri,
        log_excerpt=run.log_excerpt,
        approval_state=to_enum(run.approval_state, run_pb2.ApprovalState) if run.approval_state else None,
        approver=run.approver,
        approval_note=run.approval_note,
        webhook_notified_at=to_timestamp(run.webhook_notified_at),
        lease_owner=run.lease_owner,
        leased_until=to_timestamp(run.lease_expires_at),
        cancel_requested_at=to_timestamp(run.cancel_requested_at),
        created_at=to_timestamp(run.created_at),
        updated_at=to_timestamp(run.updated_at),
        event_id=run.event_id,
    )


def hide_messages(runs: Iterable[run_pb2.Run]) -> None:
    """Takes the messages out of the errors, which can hold what not every reader of a list should see."""
    for run in runs:
        if run.HasField("error"):
            run.error.message = ""


def step_message(step: RunStep) -> run_pb2.RunStep:
    """A step as it is answered."""
    return run_pb2.RunStep(
        position=step.position,
        id=step.id,
        uses=step.uses,
        status=to_enum(step.status, run_pb2.StepStatus),
        attempt=step.attempt,
        input_digest=step.input_digest,
        output=to_value(step.output) if _is_here(step) else None,
        error=_error_message(step.error),
        started_at=to_timestamp(step.started_at),
        finished_at=to_timestamp(step.finished_at),
        duration_ms=step.duration_ms,
        span_id=step.span_id,
        tries=step.tries,
        output_uri=step.output_uri,
        item=step.item,
        items=_items_message(step.items),
    )


def _is_here(step: RunStep) -> bool:
    """Whether the answer to show is in the record: a null there is an answer, too, but not of a step with items."""
    if step.items is not None:
        return step.output is not None
    return step.status is StepStatus.SUCCEEDED and not step.output_uri


def _items_message(items: StepItems | None) -> run_pb2.StepItems | None:
    if items is None:
        return None
    return run_pb2.StepItems(total=items.total, succeeded=items.succeeded, failed=items.failed)


def _error_message(error: RunError | None) -> run_pb2.RunError | None:
    if error is None:
        return None
    return run_pb2.RunError(
        **{"class": to_enum(error.error_class, run_pb2.ErrorClass)},
        message=error.message,
        retryable=error.retryable,
        step_id=error.step_id,
    )

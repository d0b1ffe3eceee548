"""Runs and their steps."""

from collections.abc import Iterable

import orjson
from baton.tasks.v1 import run_pb2, work_service_pb2
from google.protobuf.struct_pb2 import Struct

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, from_value, to_struct, to_value
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.run import (
    MAX_OUTPUT_BYTES,
    ErrorClass,
    Failed,
    Lease,
    LeasedRun,
    Outcome,
    Released,
    Run,
    RunError,
    RunReport,
    RunStatus,
    RunStep,
    StepStatus,
    Succeeded,
)


def run_status(value: run_pb2.RunStatus.ValueType) -> RunStatus:
    return from_enum(RunStatus, run_pb2.RunStatus, value)


def run_message(run: Run) -> run_pb2.Run:
    """A run as it is answered."""
    return run_pb2.Run(
        id=run.id,
        task_id=run.task_id,
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
        created_at=to_timestamp(run.created_at),
        updated_at=to_timestamp(run.updated_at),
    )


def step_message(step: RunStep) -> run_pb2.RunStep:
    """A step as it is answered."""
    return run_pb2.RunStep(
        position=step.position,
        id=step.id,
        uses=step.uses,
        status=to_enum(step.status, run_pb2.StepStatus),
        attempt=step.attempt,
        input_digest=step.input_digest,
        output=to_value(step.output) if step.status is StepStatus.SUCCEEDED else None,
        error=_error_message(step.error),
        started_at=to_timestamp(step.started_at),
        finished_at=to_timestamp(step.finished_at),
        duration_ms=step.duration_ms,
        span_id=step.span_id,
    )


def leased_message(leased: LeasedRun) -> work_service_pb2.LeasedRun:
    """A run as a worker gets it. Of finished steps it has the outputs that later ones can refer to: the saved ones."""
    saved = {position for position, step in enumerate(leased.payload["pipeline"]) if "save_as" in step}
    return work_service_pb2.LeasedRun(
        lease=work_service_pb2.Lease(
            run_id=leased.lease.run_id, attempt=leased.lease.attempt, token=leased.lease.token
        ),
        expires_at=to_timestamp(leased.expires_at),
        task_id=leased.task_id,
        task=leased.task,
        payload=to_struct(leased.payload),
        steps=[_done_step(step, with_output=step.position in saved) for step in leased.steps],
        traceparent=leased.traceparent,
        created_at=to_timestamp(leased.created_at),
    )


def leased_messages(runs: Iterable[LeasedRun], max_bytes: int) -> list[work_service_pb2.LeasedRun]:
    """As many of the runs, from the first on, as have `max_bytes` together; the first one whatever its size."""
    messages: list[work_service_pb2.LeasedRun] = []
    for run in runs:
        message = leased_message(run)
        max_bytes -= message.ByteSize()
        if messages and max_bytes < 0:
            break
        messages.append(message)
    return messages


def _done_step(step: RunStep, *, with_output: bool) -> run_pb2.RunStep:
    message = step_message(step)
    if not with_output:
        message.ClearField("output")
    return message


def lease(message: work_service_pb2.Lease) -> Lease:
    return Lease(stored_id(message.run_id), message.attempt, stored_id(message.token))


def report(message: work_service_pb2.RunReport, field: str) -> RunReport:
    """What a worker reports; `field` is where the message stands in its request."""
    return RunReport(
        lease=lease(message.lease),
        steps=[_step(step) for step in message.steps],
        outcome=_outcome(message, field),
    )


def _outcome(message: work_service_pb2.RunReport, field: str) -> Outcome | None:
    kind = message.WhichOneof("outcome")
    if kind == "succeeded":
        return Succeeded(_output(message.succeeded.output, f"{field}.succeeded.output"))
    if kind == "failed":
        output = _output(message.failed.output, f"{field}.failed.output")
        return Failed(_error(message.failed.error), output)
    return Released() if kind == "released" else None


def _output(struct: Struct, field: str) -> dict[str, object]:
    output = from_struct(struct)
    size = len(orjson.dumps(output))
    if size > MAX_OUTPUT_BYTES:
        description = f"is {size} bytes as JSON, at most {MAX_OUTPUT_BYTES} are allowed"
        raise InvalidArgument.of([Violation(field, description)])
    return output


def _step(message: run_pb2.RunStep) -> RunStep:
    return RunStep(
        position=message.position,
        id=message.id,
        uses=message.uses,
        status=from_enum(StepStatus, run_pb2.StepStatus, message.status),
        attempt=message.attempt,
        input_digest=message.input_digest,
        output=from_value(message.output) if message.HasField("output") else None,
        error=_error(message.error) if message.HasField("error") else None,
        started_at=from_timestamp(message.started_at),
        finished_at=from_timestamp(message.finished_at),
        duration_ms=message.duration_ms,
        span_id=message.span_id,
    )


def _error(message: run_pb2.RunError) -> RunError:
    error_class = from_enum(ErrorClass, run_pb2.ErrorClass, getattr(message, "class"))
    return RunError(error_class, message.message, message.retryable, message.step_id)


def _error_message(error: RunError | None) -> run_pb2.RunError | None:
    if error is None:
        return None
    return run_pb2.RunError(
        **{"class": to_enum(error.error_class, run_pb2.ErrorClass)},
        message=error.message,
        retryable=error.retryable,
        step_id=error.step_id,
    )

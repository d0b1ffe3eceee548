"""What workers are told and tell."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import orjson
from baton.tasks.v1 import run_pb2
from baton.tasks.v1 import work_service_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, from_value, to_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.convert.approval import approval_message, digest_of
from services.tasks.convert.enums import from_enum
from services.tasks.convert.run import step_message
from services.tasks.models.approval import DEFAULT_EXPIRY
from services.tasks.models.run import (
    MAX_OUTPUT_BYTES,
    RETRYABLE,
    AwaitsApproval,
    Canceled,
    Deferred,
    ErrorClass,
    Failed,
    Lease,
    LeasedRun,
    Outcome,
    Released,
    RunError,
    RunReport,
    RunStep,
    StepItems,
    StepStatus,
    Succeeded,
)
from services.tasks.operations.new_run import parted
from services.tasks.operations.work import Receipt, Renewed

_MAX_ITEMS_BYTES = 1024 * 1024
_MILLISECOND = timedelta(milliseconds=1)


def leased_message(leased: LeasedRun) -> pb.LeasedRun:
    """A run as a worker gets it. Of finished steps it has the outputs that later ones can refer to: the saved ones."""
    payload, event = parted(leased.payload)
    saved = {position for position, step in enumerate(payload["pipeline"]) if "save_as" in step}
    return pb.LeasedRun(
        lease=pb.Lease(run_id=leased.lease.run_id, attempt=leased.lease.attempt, token=leased.lease.token),
        expires_at=to_timestamp(leased.expires_at),
        task_id=leased.task_id,
        task=leased.task,
        payload=to_struct(payload),
        steps=[_done_step(step, with_output=step.position in saved) for step in leased.steps],
        traceparent=leased.traceparent,
        created_at=to_timestamp(leased.created_at),
        created_by=leased.created_by,
        started_at=to_timestamp(leased.started_at),
        approvals=[approval_message(approval) for approval in leased.approvals],
        event=to_struct(event["payload"]) if event else None,
        event_topic=event["topic"] if event else "",
        event_id=leased.event_id or "",
    )


def leased_messages(runs: Iterable[LeasedRun], max_bytes: int) -> list[pb.LeasedRun]:
    """As many of the runs, from the first on, as have `max_bytes` together; the first one whatever its size."""
    messages: list[pb.LeasedRun] = []
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


def items_response(items: list[RunStep], at_most: int, *, with_output: bool) -> pb.ListItemsResponse:
    """As many of the items as an answer may have; there are more when as many were read as were asked for."""
    response, size = pb.ListItemsResponse(), 0
    for item in items:
        message = _done_step(item, with_output=with_output)
        size += message.ByteSize()
        if response.items and size > _MAX_ITEMS_BYTES:
            response.has_more = True
            return response
        response.items.append(message)
    response.has_more = len(items) == at_most
    return response


def lease(message: pb.Lease) -> Lease:
    return Lease(stored_id(message.run_id), message.attempt, stored_id(message.token))


def report(message: pb.RunReport, field: str, now: datetime) -> RunReport:
    """What a worker reports, `now`; `field` is where the message stands in its request. Raises InvalidArgument."""
    return RunReport(
        lease=lease(message.lease),
        steps=[
            _step(step, f"{field}.steps[{number}]", message.lease.attempt, now)
            for number, step in enumerate(message.steps)
        ],
        outcome=_outcome(message, field),
        outputs_uri=message.outputs_uri,
    )


def used_digest(request: pb.UseApprovalRequest) -> str:
    """What the action that is about to be done is recognised by. Raises InvalidArgument."""
    if request.HasField("action") == bool(request.action_digest):
        raise InvalidArgument.of([Violation("action", "is required, or else action_digest: one of the two")])
    return request.action_digest or digest_of(from_struct(request.action), "action")


def renewed_message(lease: Lease, renewed: Renewed | None) -> pb.RenewedLease:
    """What became of a lease; None: it is lost.

    Where nothing can be said of it the answer is empty: who looks for its run's id has had none, and asks again. Its
    present end must not be told, for that would be taken for a new one.
    """
    if renewed is None:
        return pb.RenewedLease(run_id=lease.run_id)
    if renewed.expires_at is None:
        return pb.RenewedLease()
    return pb.RenewedLease(
        run_id=lease.run_id,
        expires_at=to_timestamp(renewed.expires_at),
        cancel_requested=renewed.cancel_requested,
    )


def receipt_message(report: RunReport, receipt: Receipt) -> pb.ReportReceipt:
    """What became of a report."""
    return pb.ReportReceipt(
        run_id=report.lease.run_id, accepted=receipt.accepted, cancel_requested=receipt.cancel_requested
    )


def _outcome(message: pb.RunReport, field: str) -> Outcome | None:
    kind = message.WhichOneof("outcome")
    if kind == "succeeded":
        return Succeeded(_output(message.succeeded.output, f"{field}.succeeded.output"))
    if kind == "failed":
        output = _output(message.failed.output, f"{field}.failed.output")
        failed = message.failed
        return Failed(_error(failed.error), output, failed.retry_after.ToTimedelta(), failed.final)
    if kind == "deferred":
        return Deferred(_error(message.deferred.error), message.deferred.wait.ToTimedelta())
    if kind == "awaiting_approval":
        return _awaits(message.awaiting_approval, f"{field}.awaiting_approval")
    if kind == "canceled":
        return Canceled(_output(message.canceled.output, f"{field}.canceled.output"))
    return Released() if kind == "released" else None


def _awaits(message: pb.RunAwaitsApproval, field: str) -> AwaitsApproval:
    if message.HasField("action") == bool(message.action_uri):
        raise InvalidArgument.of([Violation(f"{field}.action", "is required, or else action_uri: one of the two")])
    action = _output(message.action, f"{field}.action") if message.HasField("action") else None
    if action is None and not message.action_digest:
        raise InvalidArgument.of([Violation(f"{field}.action_digest", "is required with action_uri")])
    return AwaitsApproval(
        step_id=message.step_id,
        approver_role=message.approver_role,
        action=action,
        action_uri=message.action_uri,
        action_digest=message.action_digest or digest_of(action or {}, f"{field}.action"),
        expires=timedelta(seconds=message.expires_seconds) if message.expires_seconds else DEFAULT_EXPIRY,
    )


def _output(struct: Struct, field: str) -> dict[str, object]:
    output = from_struct(struct)
    _require_small(output, field)
    return output


def _require_small(output: object, field: str) -> None:
    size = len(orjson.dumps(output))
    if size > MAX_OUTPUT_BYTES:
        description = f"is {size} bytes as JSON, at most {MAX_OUTPUT_BYTES} are allowed"
        raise InvalidArgument.of([Violation(field, description)])


def _step(message: run_pb2.RunStep, field: str, attempt: int, now: datetime) -> RunStep:
    status = from_enum(StepStatus, run_pb2.StepStatus, message.status)
    if status is StepStatus.FAILED and not message.HasField("error"):
        raise InvalidArgument.of([Violation(f"{field}.error", "is required of a step that has failed: say why")])
    output = from_value(message.output) if message.HasField("output") else None
    # It travels with every lease, which has to fit into one message.
    _require_small(output, f"{field}.output")
    finished_at = from_timestamp(message.finished_at) if message.HasField("finished_at") else now
    started_at = from_timestamp(message.started_at) if message.HasField("started_at") else finished_at
    return RunStep(
        position=message.position,
        id=message.id,
        uses=message.uses,
        status=status,
        attempt=message.attempt or attempt,
        input_digest=message.input_digest,
        output=output,
        tries=max(1, message.tries),
        output_uri=message.output_uri,
        item=message.item if message.HasField("item") else None,
        items=StepItems(message.items.total, message.items.failed) if message.HasField("items") else None,
        error=_error(message.error) if message.HasField("error") else None,
        started_at=started_at,
        finished_at=finished_at,
        duration_ms=message.duration_ms or max(0, (finished_at - started_at) // _MILLISECOND),
        span_id=message.span_id,
    )


def _error(message: run_pb2.RunError) -> RunError:
    error_class = from_enum(ErrorClass, run_pb2.ErrorClass, getattr(message, "class"))
    # Told as it is obeyed: the class decides, whatever the worker thinks of it.
    return RunError(error_class, message.message, error_class in RETRYABLE, message.step_id)

"""Approvals between the wire and the rules."""

from datetime import timedelta
from typing import Any

import orjson
from baton.tasks.v1 import approval_pb2
from baton.tasks.v1 import approval_service_pb2 as pb

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.pipeline import canonical
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.approval import DEFAULT_EXPIRY, Approval, ApprovalFilter, ApprovalStatus, Ask
from services.tasks.models.run import MAX_OUTPUT_BYTES


def approval_message(approval: Approval) -> approval_pb2.Approval:
    """An approval as it is answered."""
    return approval_pb2.Approval(
        id=approval.id,
        run_id=approval.run_id,
        task_id=approval.task_id or "",
        task=approval.task,
        step_id=approval.step_id,
        approver_role=approval.approver_role,
        requested_by=approval.requested_by,
        reason=approval.reason,
        action=None if approval.action is None else to_struct(approval.action),
        action_uri=approval.action_uri,
        action_digest=approval.action_digest,
        status=to_enum(approval.status, approval_pb2.ApprovalStatus),
        expires_at=to_timestamp(approval.expires_at),
        decided_by=approval.decided_by or "",
        decided_at=to_timestamp(approval.decided_at),
        note=approval.note,
        used_at=to_timestamp(approval.used_at),
        created_at=to_timestamp(approval.created_at),
    )


def ask(request: pb.RequestApprovalRequest, clock: Clock) -> Ask:
    """What a caller asks. Raises InvalidArgument."""
    action = from_struct(request.action) if request.HasField("action") else None
    if action is not None and (size := len(orjson.dumps(action))) > MAX_OUTPUT_BYTES:
        description = f"is {size} bytes as JSON, at most {MAX_OUTPUT_BYTES} are allowed"
        raise InvalidArgument.of([Violation("action", description)])
    expiry = timedelta(seconds=request.expires_seconds) if request.HasField("expires_seconds") else DEFAULT_EXPIRY
    return Ask(
        approver_role=request.approver_role,
        action=action,
        action_digest="" if action is None else digest_of(action, "action"),
        expires_at=clock.now() + expiry,
        reason=request.reason or request.comments,
    )


def digest_of(action: dict[str, Any], field: str) -> str:
    """What an action is recognised by. Raises InvalidArgument for one that JSON cannot say."""
    try:
        return canonical.digest(action)
    except ValueError as error:
        raise InvalidArgument.of([Violation(field, f"must be an object of JSON: {error}")]) from None


def check_target(request: pb.RequestApprovalRequest) -> None:
    """Raises InvalidArgument unless exactly one of run and task is named."""
    if bool(request.run_id) == bool(request.task_id):
        raise InvalidArgument.of([Violation("run_id", "is required, or else task_id: exactly one of the two")])


def decision(request: pb.RequestApprovalRequest) -> ApprovalStatus:
    """What a caller says: that it asks, which is the default, or an answer."""
    if not request.HasField("decision"):
        return ApprovalStatus.PENDING
    return from_enum(ApprovalStatus, approval_pb2.ApprovalStatus, request.decision)


def approval_filter(request: pb.ListApprovalsRequest) -> ApprovalFilter:
    """Which approvals a caller wants."""
    given = (from_enum(ApprovalStatus, approval_pb2.ApprovalStatus, status) for status in request.status)
    return ApprovalFilter(
        statuses=tuple(dict.fromkeys(given)) or (ApprovalStatus.PENDING,),
        approver_role=request.approver_role,
        run_id=stored_id(request.run_id) if request.run_id else "",
        task_id=stored_id(request.task_id) if request.task_id else "",
    )

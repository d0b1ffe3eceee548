"""What people said about the steps of a run that they must approve."""

from typing import Any

import orjson
from baton.tasks.v1 import approval_pb2, work_service_pb2, work_service_pb2_grpc

from services.chassis import structs
from services.chassis.errors import FailedPrecondition
from services.pipeline import canonical
from services.pipeline.definition import Step
from services.pipeline.options import Approval
from services.worker.failures import ApprovalRejected
from services.worker.files import Files
from services.worker.limits import MAX_OUTPUT_BYTES
from services.worker.patience import ANSWER_SECONDS, until_answered
from services.worker.reporting import LeaseLost

_APPROVED = approval_pb2.APPROVAL_STATUS_APPROVED
_LEASE_LOST = "LEASE_LOST"


class NeedsApproval(Exception):
    """A step may not be begun before somebody has approved just this action."""

    def __init__(self, step_id: str, approval: Approval, action: dict[str, Any], digest: str) -> None:
        super().__init__(step_id)
        self._asked = work_service_pb2.RunAwaitsApproval(
            step_id=step_id,
            approver_role=approval.role,
            action_digest=digest,
            expires_seconds=approval.expires_seconds,
        )
        self._action = action

    async def outcome(self, files: Files) -> work_service_pb2.RunReport:
        """What to report. Raises ServiceError when the action is too large and cannot be kept."""
        content = orjson.dumps(self._action)
        if len(content) > MAX_OUTPUT_BYTES:
            self._asked.action_uri = await files.put(content)
        else:
            self._asked.action.CopyFrom(structs.to_struct(self._action))
        return work_service_pb2.RunReport(awaiting_approval=self._asked)


class Approvals:
    """The answers that a lease brought along."""

    def __init__(self, leased: work_service_pb2.LeasedRun, stub: work_service_pb2_grpc.WorkServiceStub) -> None:
        self._lease = leased.lease
        # The newest of a step counts, and they come oldest first.
        self._answers = {approval.step_id: approval for approval in leased.approvals}
        self._stub = stub

    async def require(self, step: Step, approval: Approval, arguments: Any) -> None:
        """Returns when the service has confirmed, now, that this call is approved. Nothing may come in between.

        Raises NeedsApproval when nobody was asked about just this action, ApprovalRejected, and LeaseLost.
        """
        action = {"tool": step.uses, "arguments": arguments}
        digest = canonical.digest(action)
        answer = self._answers.get(step.id)
        if answer is None or answer.action_digest != digest:
            raise NeedsApproval(step.id, approval, action, digest)
        if answer.status != _APPROVED:
            raise ApprovalRejected(_why(answer))
        request = work_service_pb2.UseApprovalRequest(lease=self._lease, approval_id=answer.id, action_digest=digest)
        try:
            await until_answered(lambda: self._stub.UseApproval(request, timeout=ANSWER_SECONDS))
        except FailedPrecondition as error:
            if error.reason == _LEASE_LOST:
                raise LeaseLost from None
            raise ApprovalRejected(error.message) from None


def _why(answer: approval_pb2.Approval) -> str:
    note = f": {answer.note}" if answer.note else ""
    if answer.status == approval_pb2.APPROVAL_STATUS_REJECTED:
        return f"agent {answer.decided_by} rejected this step{note}"
    return f"this step was not approved{note}"

"""ApprovalService."""

from typing import Any, TypeVar

from baton.tasks.v1 import approval_service_pb2 as pb
from baton.tasks.v1 import approval_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import Caller, caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ScopeMissing
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.tasks.convert import approval as convert
from services.tasks.models.approval import ApprovalStatus
from services.tasks.operations import approval as operations
from services.tasks.operations.approval import Answered
from services.tasks.store import approval as approval_store

_Context = ServicerContext[Any, Any]
_DECIDE = "approvals:decide"
_Decide = pb.ApproveApprovalRequest | pb.RejectApprovalRequest
_Decided = TypeVar("_Decided", pb.ApproveApprovalResponse, pb.RejectApprovalResponse)


class ApprovalServicer(rpc.ApprovalServiceServicer):
    """Questions that people answer before a run goes on."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, work_wakeup: Wakeup) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._work_wakeup = work_wakeup

    async def RequestApproval(
        self, request: pb.RequestApprovalRequest, context: _Context
    ) -> pb.RequestApprovalResponse:
        convert.check_target(request)
        asker, said = caller(), convert.decision(request)
        if said is not ApprovalStatus.PENDING and not asker.holds(_DECIDE):
            raise ScopeMissing(_DECIDE)
        roles: set[str] = set()

        def carry_out(connection: Connection, clock: Clock) -> pb.RequestApprovalResponse:
            answered = _requested(connection, request, said, asker, clock)
            roles.update(answered.roles)
            message = convert.approval_message(answered.approval)
            return pb.RequestApprovalResponse(approval_id=message.id, status="accepted", approval=message)

        response = await self._idempotency.once(request, pb.RequestApprovalResponse, carry_out)
        self._wake(roles)
        return response

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: _Context) -> pb.ListApprovalsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.approval_filter(request)
        rows = await self._database.read(
            lambda connection, clock: approval_store.list_approvals(
                connection, wanted, limit=limit + 1, after_id=str(position[0]) if position else None
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.approval_message, lambda row: row.id)
        return pb.ListApprovalsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetApproval(self, request: pb.GetApprovalRequest, context: _Context) -> pb.GetApprovalResponse:
        approval_id = stored_id(request.approval_id)
        approval = await self._database.read(lambda connection, clock: operations.get_approval(connection, approval_id))
        return pb.GetApprovalResponse(approval=convert.approval_message(approval))

    async def ApproveApproval(
        self, request: pb.ApproveApprovalRequest, context: _Context
    ) -> pb.ApproveApprovalResponse:
        return await self._decide(request, pb.ApproveApprovalResponse, ApprovalStatus.APPROVED)

    async def RejectApproval(self, request: pb.RejectApprovalRequest, context: _Context) -> pb.RejectApprovalResponse:
        return await self._decide(request, pb.RejectApprovalResponse, ApprovalStatus.REJECTED)

    async def _decide(self, request: _Decide, response_type: type[_Decided], status: ApprovalStatus) -> _Decided:
        approver, approval_id = caller(), stored_id(request.approval_id)
        roles: set[str] = set()

        def carry_out(connection: Connection, clock: Clock) -> _Decided:
            answered = operations.decide(
                connection, approval_id, status, request.note, approver, clock, request_id=request.request_id
            )
            roles.update(answered.roles)
            return response_type(approval=convert.approval_message(answered.approval))

        response = await self._idempotency.once(request, response_type, carry_out)
        self._wake(roles)
        return response

    def _wake(self, roles: set[str]) -> None:
        if roles:
            self._work_wakeup.notify(*roles)


def _requested(
    connection: Connection, request: pb.RequestApprovalRequest, said: ApprovalStatus, asker: Caller, clock: Clock
) -> Answered:
    """The question that was asked, or answered."""
    run_id = operations.run_in_question(
        connection,
        stored_id(request.run_id) if request.run_id else "",
        stored_id(request.task_id) if request.task_id else "",
    )
    if said is ApprovalStatus.PENDING:
        ask = convert.ask(request, clock)
        return operations.request_approval(connection, run_id, ask, asker, clock, request_id=request.request_id)
    approval_id = operations.pending_approval_of(connection, run_id)
    note = request.comments or request.reason
    return operations.decide(connection, approval_id, said, note, asker, clock, request_id=request.request_id)

"""WorkflowService."""

from typing import Any

from baton.workflows.v1 import workflow_service_pb2 as pb
from baton.workflows.v1 import workflow_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.workflows.convert import workflow as convert
from services.workflows.convert.handoff import handoff_message
from services.workflows.operations import moves
from services.workflows.operations import workflow as operations

_Context = ServicerContext[Any, Any]


class WorkflowServicer(rpc.WorkflowServiceServicer):
    """Work on its way along templates."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def StartWorkflow(self, request: pb.StartWorkflowRequest, context: _Context) -> pb.StartWorkflowResponse:
        new, starter, key = convert.new_workflow(request), caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.StartWorkflowResponse,
            lambda connection, clock: convert.started_message(
                operations.start_workflow(connection, new, starter, clock, request_id=key)
            ),
        )

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: _Context) -> pb.ListWorkflowsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.workflow_filter(request)
        before_id = str(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: operations.list_workflows(
                connection, wanted, limit=limit + 1, before_id=before_id
            )
        )
        items, cursor = self._cursors.page(request, found, convert.workflow_message, lambda one: one.workflow.id)
        return pb.ListWorkflowsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: _Context) -> pb.GetWorkflowResponse:
        workflow_id = stored_id(request.workflow_id)
        standing = await self._database.read(lambda connection, clock: operations.get_workflow(connection, workflow_id))
        return pb.GetWorkflowResponse(workflow=convert.workflow_message(standing))

    async def AdvanceWorkflow(
        self, request: pb.AdvanceWorkflowRequest, context: _Context
    ) -> pb.AdvanceWorkflowResponse:
        workflow_id, done, who, key = _id(request), convert.advance(request), caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.AdvanceWorkflowResponse,
            lambda connection, clock: convert.advanced_message(
                moves.advance_workflow(connection, workflow_id, done, who, clock, request_id=key)
            ),
        )

    async def GetWorkflowStatus(
        self, request: pb.GetWorkflowStatusRequest, context: _Context
    ) -> pb.GetWorkflowStatusResponse:
        workflow_id = stored_id(request.workflow_id)

        def read(connection: Connection, clock: Clock) -> pb.GetWorkflowStatusResponse:
            standing = operations.get_workflow(connection, workflow_id)
            _, handoffs = operations.get_history(connection, workflow_id)
            return convert.status_message(standing, handoffs, clock.now())

        return await self._database.read(read)

    async def RequestRetry(self, request: pb.RequestRetryRequest, context: _Context) -> pb.RequestRetryResponse:
        workflow_id, reason, who, key = _id(request), request.reason, caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.RequestRetryResponse,
            lambda connection, clock: convert.retry_message(
                moves.request_retry(connection, workflow_id, reason, who, clock, request_id=key), reason
            ),
        )

    async def RollBackWorkflow(
        self, request: pb.RollBackWorkflowRequest, context: _Context
    ) -> pb.RollBackWorkflowResponse:
        workflow_id, target, reason = _id(request), request.target_state, request.reason
        who, key = caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.RollBackWorkflowResponse,
            lambda connection, clock: convert.rolled_back_message(
                moves.roll_back_workflow(connection, workflow_id, target, reason, who, clock, request_id=key), reason
            ),
        )

    async def CancelWorkflow(self, request: pb.CancelWorkflowRequest, context: _Context) -> pb.CancelWorkflowResponse:
        workflow_id, reason, who, key = _id(request), request.reason, caller(), request.request_id
        return await self._idempotency.once(
            request,
            pb.CancelWorkflowResponse,
            lambda connection, clock: pb.CancelWorkflowResponse(
                workflow=convert.workflow_message(
                    operations.cancel_workflow(connection, workflow_id, reason, who, clock, request_id=key)
                )
            ),
        )

    async def GetWorkflowHistory(
        self, request: pb.GetWorkflowHistoryRequest, context: _Context
    ) -> pb.GetWorkflowHistoryResponse:
        workflow_id, limit = stored_id(request.workflow_id), page_limit(request)
        count, handoffs = await self._database.read(
            lambda connection, clock: operations.get_history(connection, workflow_id, limit)
        )
        return pb.GetWorkflowHistoryResponse(handoff_count=count, handoffs=map(handoff_message, handoffs))

    async def ListWorkflowEvents(
        self, request: pb.ListWorkflowEventsRequest, context: _Context
    ) -> pb.ListWorkflowEventsResponse:
        position, limit, workflow_id = self._cursors.decode(request), page_limit(request), _id(request)
        before = int(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: operations.list_events(connection, workflow_id, limit=limit + 1, before=before)
        )
        items, cursor = self._cursors.page(request, found, convert.event_message, lambda event: event.sequence)
        return pb.ListWorkflowEventsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetProjectStats(
        self, request: pb.GetProjectStatsRequest, context: _Context
    ) -> pb.GetProjectStatsResponse:
        project_id = request.project_id
        stats = await self._database.read(lambda connection, clock: operations.get_stats(connection, project_id))
        return convert.stats_message(stats)


def _id(request: Any) -> str:
    return stored_id(request.workflow_id)

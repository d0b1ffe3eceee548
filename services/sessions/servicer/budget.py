"""BudgetService."""

from datetime import datetime
from typing import Any

from baton.sessions.v1 import budget_service_pb2 as pb
from baton.sessions.v1 import budget_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import budget as convert
from services.sessions.models.budget import Budget
from services.sessions.operations import budget as operations
from services.sessions.store import budget as store

_Context = ServicerContext[Any, Any]


class BudgetServicer(rpc.BudgetServiceServicer):
    """What agents and sessions may use."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: _Context) -> pb.CreateBudgetResponse:
        new, maker = convert.new_budget(request), caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateBudgetResponse:
            budget = operations.create_budget(connection, new, maker, clock, request_id=request.request_id)
            return pb.CreateBudgetResponse(budget=convert.budget_message(budget, clock.now()))

        return await self._idempotency.once(request, pb.CreateBudgetResponse, create)

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: _Context) -> pb.ListBudgetsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        before_id = str(position[0]) if position else None

        def read(connection: Connection, clock: Clock) -> tuple[list[Budget], datetime]:
            agent_id, session_id = stored_id(request.agent_id), stored_id(request.session_id)
            found = store.list_budgets(
                connection, agent_id=agent_id, session_id=session_id, limit=limit + 1, before_id=before_id
            )
            return found, clock.now()

        found, now = await self._database.read(read)
        items, cursor = self._cursors.page(
            request, found, lambda budget: convert.budget_message(budget, now), lambda budget: budget.id
        )
        return pb.ListBudgetsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetBudget(self, request: pb.GetBudgetRequest, context: _Context) -> pb.GetBudgetResponse:
        budget_id = stored_id(request.budget_id)
        message = await self._database.read(
            lambda connection, clock: convert.budget_message(operations.get_budget(connection, budget_id), clock.now())
        )
        return pb.GetBudgetResponse(budget=message)

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: _Context) -> pb.UpdateBudgetResponse:
        budget_id, changes, changer = stored_id(request.budget_id), convert.budget_changes(request), caller()

        def change(connection: Connection, clock: Clock) -> pb.UpdateBudgetResponse:
            budget = operations.update_budget(
                connection, budget_id, changes, changer, clock, request_id=request.request_id
            )
            return pb.UpdateBudgetResponse(budget=convert.budget_message(budget, clock.now()))

        return await self._idempotency.once(request, pb.UpdateBudgetResponse, change)

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: _Context) -> pb.DeleteBudgetResponse:
        budget_id, remover = stored_id(request.budget_id), caller()

        def remove(connection: Connection, clock: Clock) -> pb.DeleteBudgetResponse:
            operations.delete_budget(connection, budget_id, remover, clock, request_id=request.request_id)
            return pb.DeleteBudgetResponse()

        return await self._idempotency.once(request, pb.DeleteBudgetResponse, remove)

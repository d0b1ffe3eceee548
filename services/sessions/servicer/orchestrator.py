"""OrchestratorService."""

from typing import Any

from baton.sessions.v1 import orchestrator_service_pb2 as pb
from baton.sessions.v1 import orchestrator_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.egress.guard import Guard
from services.chassis.idempotency import Idempotency
from services.sessions.convert import agent as convert
from services.sessions.operations import orchestrator as operations

_Context = ServicerContext[Any, Any]


class OrchestratorServicer(rpc.OrchestratorServiceServicer):
    """The one agent that orchestrates the others."""

    def __init__(self, database: Database, idempotency: Idempotency, guard: Guard) -> None:
        self._database = database
        self._idempotency = idempotency
        self._guard = guard

    async def GetOrchestrator(
        self, request: pb.GetOrchestratorRequest, context: _Context
    ) -> pb.GetOrchestratorResponse:
        agent = await self._database.read(lambda connection, clock: operations.get_orchestrator(connection))
        return pb.GetOrchestratorResponse(orchestrator=convert.agent_message(agent))

    async def EnsureOrchestrator(
        self, request: pb.EnsureOrchestratorRequest, context: _Context
    ) -> pb.EnsureOrchestratorResponse:
        new, maker = convert.new_orchestrator(request), caller()

        def ensure(connection: Connection, clock: Clock) -> pb.EnsureOrchestratorResponse:
            agent, created = operations.ensure_orchestrator(
                connection, new, self._guard, maker, clock, request_id=request.request_id
            )
            return pb.EnsureOrchestratorResponse(orchestrator=convert.agent_message(agent), created=created)

        return await self._idempotency.once(request, pb.EnsureOrchestratorResponse, ensure)

    async def ResetContext(self, request: pb.ResetContextRequest, context: _Context) -> pb.ResetContextResponse:
        resetter = caller()

        def reset(connection: Connection, clock: Clock) -> pb.ResetContextResponse:
            agent = operations.reset_context(connection, resetter, clock, request_id=request.request_id)
            return pb.ResetContextResponse(orchestrator=convert.agent_message(agent))

        return await self._idempotency.once(request, pb.ResetContextResponse, reset)

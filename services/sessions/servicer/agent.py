"""AgentService: the methods about agents; those about their tokens are in `token`."""

from typing import Any

from baton.sessions.v1 import agent_service_pb2 as pb
from baton.sessions.v1 import agent_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.call import caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.egress.guard import Guard
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import agent as convert
from services.sessions.operations import agent as operations
from services.sessions.operations.usage import record_usage
from services.sessions.servicer.token import TokenMethods
from services.sessions.store import agent as store

_Context = ServicerContext[Any, Any]


class AgentServicer(TokenMethods, rpc.AgentServiceServicer):
    """Agents and the tokens they call with."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, guard: Guard) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._guard = guard

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: _Context) -> pb.CreateAgentResponse:
        new, maker = convert.new_agent(request), caller()

        def create(connection: Connection, clock: Clock) -> pb.CreateAgentResponse:
            agent = operations.create_agent(connection, new, self._guard, maker, clock, request_id=request.request_id)
            return pb.CreateAgentResponse(agent=convert.agent_message(agent))

        return await self._idempotency.once(request, pb.CreateAgentResponse, create)

    async def ListAgents(self, request: pb.ListAgentsRequest, context: _Context) -> pb.ListAgentsResponse:
        listed, limit, offset = _without_offset(request), page_limit(request), request.offset
        position, wanted = self._cursors.decode(listed), convert.agent_filter(request)
        before_id = str(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: store.list_agents(
                connection, wanted, limit=limit + 1, before_id=before_id, offset=offset
            )
        )
        items, cursor = self._cursors.page(listed, found, convert.agent_message, lambda agent: agent.id)
        return pb.ListAgentsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetAgent(self, request: pb.GetAgentRequest, context: _Context) -> pb.GetAgentResponse:
        agent_id = stored_id(request.agent_id)
        agent = await self._database.read(lambda connection, clock: operations.get_agent(connection, agent_id=agent_id))
        return pb.GetAgentResponse(agent=convert.agent_message(agent))

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: _Context) -> pb.WhoAmIResponse:
        who = caller()
        agent = await self._database.read(
            lambda connection, clock: operations.get_agent(connection, agent_id=who.agent_id)
        )
        return pb.WhoAmIResponse(agent=convert.agent_message(agent), scopes=sorted(who.scopes), token_id=who.token_id)

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: _Context) -> pb.UpdateAgentResponse:
        agent_id, changes, changer = stored_id(request.agent_id), convert.agent_changes(request), caller()
        version = convert.expected_version(request)

        def change(connection: Connection, clock: Clock) -> pb.UpdateAgentResponse:
            agent = operations.update_agent(
                connection,
                agent_id,
                changes,
                self._guard,
                changer,
                clock,
                version=version,
                request_id=request.request_id,
            )
            return pb.UpdateAgentResponse(agent=convert.agent_message(agent))

        return await self._idempotency.once(request, pb.UpdateAgentResponse, change)

    async def ArchiveAgent(self, request: pb.ArchiveAgentRequest, context: _Context) -> pb.ArchiveAgentResponse:
        agent_id, archiver = stored_id(request.agent_id), caller()

        def archive(connection: Connection, clock: Clock) -> pb.ArchiveAgentResponse:
            agent = operations.archive_agent(connection, agent_id, archiver, clock, request_id=request.request_id)
            return convert.archived_message(agent)

        return await self._idempotency.once(request, pb.ArchiveAgentResponse, archive)

    async def SetAgentStatus(self, request: pb.SetAgentStatusRequest, context: _Context) -> pb.SetAgentStatusResponse:
        agent_id, status, changer = stored_id(request.agent_id), convert.agent_status(request), caller()

        def change(connection: Connection, clock: Clock) -> pb.SetAgentStatusResponse:
            agent = operations.set_status(
                connection, agent_id, status, changer, clock, note=request.reason, request_id=request.request_id
            )
            return pb.SetAgentStatusResponse(agent=convert.agent_message(agent))

        return await self._idempotency.once(request, pb.SetAgentStatusResponse, change)

    async def AddAgentUsage(self, request: pb.AddAgentUsageRequest, context: _Context) -> pb.AddAgentUsageResponse:
        used, reporter = convert.usage(request), caller()

        def add(connection: Connection, clock: Clock) -> pb.AddAgentUsageResponse:
            record_usage(connection, [used], reporter, clock)
            agent = operations.get_agent(connection, agent_id=used.agent_id)
            return pb.AddAgentUsageResponse(agent=convert.agent_message(agent))

        return await self._idempotency.once(request, pb.AddAgentUsageResponse, add)


def _without_offset(request: pb.ListAgentsRequest) -> pb.ListAgentsRequest:
    """The request as cursors are bound to it: who has come by offset may go on by cursor, and then with none."""
    if request.cursor and request.offset:
        raise InvalidArgument.of([Violation("offset", "does not go together with a cursor: leave one of them out")])
    bound = pb.ListAgentsRequest()
    bound.CopyFrom(request)
    bound.ClearField("offset")
    return bound

"""LogService."""

from collections.abc import Sequence
from typing import Any

from baton.sessions.v1 import log_service_pb2 as pb
from baton.sessions.v1 import log_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis import call, telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.idempotency import Idempotency
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.sessions.convert import log as convert
from services.sessions.models.log import AgentBatch, AgentLog, SystemBatch
from services.sessions.operations import log as operations
from services.sessions.operations.agent import get_agent
from services.sessions.store import agent_log, system_log

_Context = ServicerContext[Any, Any]
_TAIL = 10
# Each has up to 1000 entries: that many are one transaction of a second or so.
_BATCHES_AT_ONCE = 20


class LogServicer(rpc.LogServiceServicer):
    """What is written down, and told to those who watch through `wakeup`."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, wakeup: Wakeup) -> None:
        self._database = database
        self._cursors = cursors
        self._wakeup = wakeup
        self._agent_batches = idempotency.grouped(pb.AppendAgentLogsResponse, _append_agent_logs, _BATCHES_AT_ONCE)
        self._system_batches = idempotency.grouped(pb.AppendSystemLogsResponse, _append_system_logs, _BATCHES_AT_ONCE)
        self._appended = telemetry.meter().create_counter(
            metric_names.LOGS_APPENDED, description="entries added to the logs, by kind"
        )

    async def AppendAgentLogs(
        self, request: pb.AppendAgentLogsRequest, context: _Context
    ) -> pb.AppendAgentLogsResponse:
        batch = convert.agent_batch(request)
        operations.check_agent_batch(batch, call.caller())
        response = await self._agent_batches.once(request, batch)
        self._tell("agent_log", len(batch.entries))
        return response

    async def ListAgentLogs(self, request: pb.ListAgentLogsRequest, context: _Context) -> pb.ListAgentLogsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.agent_log_filter(request)
        before = int(position[0]) if position else None

        def read(connection: Connection, clock: Clock) -> list[AgentLog]:
            get_agent(connection, agent_id=wanted.agent_id)
            return agent_log.list_entries(connection, wanted, limit=limit + 1, before=before)

        entries = await self._database.read(read)
        items, cursor = self._cursors.page(request, entries, convert.agent_log_message, lambda entry: entry.position)
        return pb.ListAgentLogsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def TailAgentLogs(self, request: pb.TailAgentLogsRequest, context: _Context) -> pb.TailAgentLogsResponse:
        slug = request.task_slug if request.HasField("task_slug") else None
        tail = await self._database.read(
            lambda connection, clock: operations.tail(
                connection,
                agent_id=stored_id(request.agent_id),
                task_slug=slug,
                limit=request.limit if request.HasField("limit") else _TAIL,
                offset=request.offset,
                verbose=request.verbose,
            )
        )
        return convert.tail_message(tail)

    async def AppendSystemLogs(
        self, request: pb.AppendSystemLogsRequest, context: _Context
    ) -> pb.AppendSystemLogsResponse:
        batch = convert.system_batch(request, call.caller().agent_id)
        operations.check_system_batch(batch)
        response = await self._system_batches.once(request, batch)
        self._tell("system_log", len(batch.entries))
        return response

    async def ListSystemLogs(self, request: pb.ListSystemLogsRequest, context: _Context) -> pb.ListSystemLogsResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.system_log_filter(request)
        before = int(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: system_log.list_lines(connection, wanted, limit=limit + 1, before=before)
        )
        items, cursor = self._cursors.page(request, found.lines, convert.system_log_message, lambda line: line.position)
        if cursor is None and found.stopped_at is not None:
            cursor = self._cursors.encode(request, [found.stopped_at])
        return pb.ListSystemLogsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    def _tell(self, kind: str, count: int) -> None:
        serving = call.current.get()
        if serving is None or not serving.replayed:
            self._appended.add(count, {"kind": kind})
        self._wakeup.notify("")


def _append_agent_logs(
    connection: Connection, clock: Clock, batches: Sequence[AgentBatch]
) -> list[pb.AppendAgentLogsResponse | ServiceError]:
    answers = operations.append_agent_logs(connection, batches, clock)
    return [
        answer if isinstance(answer, ServiceError) else pb.AppendAgentLogsResponse(entry_indexes=answer)
        for answer in answers
    ]


def _append_system_logs(
    connection: Connection, clock: Clock, batches: Sequence[SystemBatch]
) -> list[pb.AppendSystemLogsResponse]:
    firsts = operations.append_system_logs(connection, batches, clock) if batches else []
    return [pb.AppendSystemLogsResponse(first_position=first) for first in firsts]

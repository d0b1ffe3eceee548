"""RunService."""

from collections.abc import AsyncIterator
from typing import Any

from baton.tasks.v1 import run_service_pb2 as pb
from baton.tasks.v1 import run_service_pb2_grpc as rpc
from google.api import httpbody_pb2
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.paging import Cursors, page_limit
from services.tasks.convert import run as convert
from services.tasks.errors import RunNotFound
from services.tasks.models.run import Run, RunStep
from services.tasks.store import export, history

_Context = ServicerContext[Any, Any]
_CSV = "text/csv; charset=utf-8"


class RunServicer(rpc.RunServiceServicer):
    """Runs, as people read them."""

    def __init__(self, database: Database, cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        run_id = request.run_id
        run = await self._database.read(lambda connection, clock: _existing_run(connection, run_id))
        return pb.GetRunResponse(run=convert.run_message(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        statuses = [convert.run_status(status) for status in request.status]
        task_ids = list(request.task_id)
        rows = await self._database.read(
            lambda connection, clock: history.list_runs(
                connection,
                limit=limit + 1,
                before_id=str(position[0]) if position else None,
                statuses=statuses,
                task_ids=task_ids,
            )
        )
        items, cursor = self._cursors.page(request, rows, convert.run_message, lambda row: row.id)
        return pb.ListRunsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ListRunSteps(self, request: pb.ListRunStepsRequest, context: _Context) -> pb.ListRunStepsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        run_id, after_position = request.run_id, int(position[0]) if position else None

        def steps(connection: Connection, clock: Clock) -> list[RunStep]:
            _existing_run(connection, run_id)
            return history.list_steps(connection, run_id, limit=limit + 1, after_position=after_position)

        items, cursor = self._cursors.page(
            request, await self._database.read(steps), convert.step_message, lambda row: row.position
        )
        return pb.ListRunStepsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ExportRuns(
        self, request: pb.ExportRunsRequest, context: _Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        columns = _known_columns(request.columns) or export.COLUMNS
        statuses = [convert.run_status(status) for status in request.status]
        task_ids = list(request.task_id)
        chunks = self._database.stream(
            lambda connection, clock: export.export_runs(
                connection,
                columns=columns,
                statuses=statuses,
                task_ids=task_ids,
                limit=request.limit if request.HasField("limit") else None,
            )
        )
        async for chunk in chunks:
            yield httpbody_pb2.HttpBody(content_type=_CSV, data=chunk)


def _existing_run(connection: Connection, run_id: str) -> Run:
    run = history.get_run(connection, run_id)
    if run is None:
        raise RunNotFound(run_id)
    return run


def _known_columns(names: Any) -> tuple[str, ...]:
    unknown = [
        Violation(f"columns[{index}]", f"{name!r} is not a column: use some of {', '.join(export.COLUMNS)}")
        for index, name in enumerate(names)
        if name not in export.COLUMNS
    ]
    if unknown:
        raise InvalidArgument.of(unknown)
    return tuple(names)

"""RunService: what people read of runs, and what they delete."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1 import run_service_pb2 as pb
from baton.tasks.v1 import run_service_pb2_grpc as rpc
from google.api import httpbody_pb2
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import call
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.chassis.wakeup import Wakeup
from services.tasks.convert import run as convert
from services.tasks.convert.enums import from_enum
from services.tasks.convert.run_filter import run_filter
from services.tasks.convert.run_line import run_line
from services.tasks.convert.run_stats import stats_message, summary_message
from services.tasks.errors import RunNotFound, StepNotFound
from services.tasks.models.pruning import Pruned
from services.tasks.models.run import Run, RunStep, StepStatus
from services.tasks.operations import retention
from services.tasks.operations.task import get_task
from services.tasks.pruning import Pruner
from services.tasks.servicer.explain import RunExplanations
from services.tasks.servicer.run_control import RunControl
from services.tasks.servicer.run_watch import RunWatches, Watching
from services.tasks.store import export, history, statistics
from services.tasks.store.step import list_items

_Context = ServicerContext[Any, Any]
_CSV = "text/csv; charset=utf-8"
_NDJSON = "application/x-ndjson; charset=utf-8"
_COUNTED = 10_001
_TASK_DAYS, _SUMMARY_DAYS = 30, 7


class RunServicer(RunControl, RunExplanations, RunWatches, rpc.RunServiceServicer):
    """Runs, as people read them."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, work_wakeup: Wakeup) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._work_wakeup = work_wakeup
        self._pruner = Pruner(database)
        self._watching = Watching(database)

    def stop(self) -> None:
        """Ends the calls that would otherwise go on for as long as anybody watches."""
        self._watching.tail.stop()

    async def GetRun(self, request: pb.GetRunRequest, context: _Context) -> pb.GetRunResponse:
        run_id = request.run_id
        run = await self._database.read(lambda connection, clock: _existing_run(connection, run_id))
        return pb.GetRunResponse(run=convert.run_message(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: _Context) -> pb.ListRunsResponse:
        if request.cursor and request.offset:
            raise InvalidArgument.of([Violation("offset", "is for lists without a cursor: give one of the two")])
        position, limit, wanted = self._cursors.decode(request), page_limit(request), run_filter(request)
        before_id = str(position[0]) if position else None
        is_counted = not request.cursor and not request.text

        def read(connection: Connection, clock: Clock) -> tuple[list[Run], int | None]:
            total = history.count_runs(connection, wanted, at_most=_COUNTED) if is_counted else None
            runs = history.list_runs(connection, wanted, limit=limit + 1, before_id=before_id, offset=request.offset)
            return runs, total

        runs, total = await self._database.read(read)
        offset, request.offset = request.offset, 0  # the next page begins behind a run, not behind a number of them
        items, cursor = self._cursors.page(request, runs, convert.run_message, lambda run: run.id)
        if request.HasField("include_errors") and not request.include_errors:
            convert.hide_messages(items)
        return pb.ListRunsResponse(
            items=items, next_cursor=cursor, has_more=cursor is not None, total=total, limit=limit, offset=offset
        )

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

    async def ListStepItems(self, request: pb.ListStepItemsRequest, context: _Context) -> pb.ListStepItemsResponse:
        cursor, limit = self._cursors.decode(request), page_limit(request)
        after = int(cursor[0]) if cursor else None
        status = from_enum(StepStatus, run_pb2.StepStatus, request.status) if request.HasField("status") else None

        def items(connection: Connection, clock: Clock) -> list[RunStep]:
            _existing_run(connection, request.run_id)
            position = history.step_position(connection, request.run_id, request.step_id)
            if position is None:
                raise StepNotFound(request.run_id, request.step_id)
            return list_items(connection, request.run_id, position, limit=limit + 1, after=after, status=status)

        page, next_cursor = self._cursors.page(
            request, await self._database.read(items), convert.step_message, lambda item: item.item or 0
        )
        return pb.ListStepItemsResponse(items=page, next_cursor=next_cursor, has_more=next_cursor is not None)

    async def ExportRuns(
        self, request: pb.ExportRunsRequest, context: _Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        columns, wanted = _known_columns(request.columns) or export.DEFAULT_COLUMNS, run_filter(request)
        limit = request.limit if request.HasField("limit") else None
        chunks = self._database.stream(
            lambda connection, clock: export.export_runs(connection, wanted, columns=columns, limit=limit)
        )
        async for chunk in chunks:
            yield httpbody_pb2.HttpBody(content_type=_CSV, data=chunk)

    async def ExportRunsAsNdjson(
        self, request: pb.ExportRunsAsNdjsonRequest, context: _Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        wanted, limit = run_filter(request), request.limit if request.HasField("limit") else None
        chunks = self._database.stream(
            lambda connection, clock: export.export_lines(connection, wanted, run_line, limit=limit)
        )
        async for chunk in chunks:
            yield httpbody_pb2.HttpBody(content_type=_NDJSON, data=chunk)

    async def GetLatestRun(self, request: pb.GetLatestRunRequest, context: _Context) -> pb.GetLatestRunResponse:
        task_id = request.task_id

        def latest(connection: Connection, clock: Clock) -> Run | None:
            get_task(connection, task_id)
            return statistics.latest_run(connection, task_id)

        run = await self._database.read(latest)
        return pb.GetLatestRunResponse(run=None if run is None else convert.run_message(run))

    async def GetTaskRunStats(
        self, request: pb.GetTaskRunStatsRequest, context: _Context
    ) -> pb.GetTaskRunStatsResponse:
        task_id, days = request.task_id, request.days if request.HasField("days") else _TASK_DAYS

        def count(connection: Connection, clock: Clock) -> statistics.RunStats:
            get_task(connection, task_id)
            return statistics.run_stats(connection, clock.now() - timedelta(days=days), task_id)

        return pb.GetTaskRunStatsResponse(stats=stats_message(await self._database.read(count), days))

    async def GetRunStatsSummary(
        self, request: pb.GetRunStatsSummaryRequest, context: _Context
    ) -> pb.GetRunStatsSummaryResponse:
        days = request.days if request.HasField("days") else _SUMMARY_DAYS
        summary = await self._database.read(
            lambda connection, clock: statistics.summary(connection, clock.now() - timedelta(days=days))
        )
        return summary_message(summary, days)

    async def PruneRuns(self, request: pb.PruneRunsRequest, context: _Context) -> pb.PruneRunsResponse:
        admin, key = call.caller(), request.request_id
        if not request.HasField("dry_run") or request.dry_run:
            return await self._database.read(lambda connection, clock: _counted(connection, request, clock))
        # A repeated request is answered as before, without deleting what has grown old since.
        if earlier := await self._idempotency.earlier_answer(request, pb.PruneRunsResponse):
            return earlier
        cutoff = await self._database.read(lambda connection, clock: _cutoff(request, clock))
        pruned = await self._pruner.prune(cutoff)

        def finish(connection: Connection, clock: Clock) -> pb.PruneRunsResponse:
            retention.audit_pruning(connection, cutoff, pruned, admin.agent_id, key, clock)
            return _pruned_message(cutoff, pruned, dry_run=False)

        return await self._idempotency.once(request, pb.PruneRunsResponse, finish)


def _counted(connection: Connection, request: pb.PruneRunsRequest, clock: Clock) -> pb.PruneRunsResponse:
    cutoff = _cutoff(request, clock)
    return _pruned_message(cutoff, retention.count_prunable(connection, cutoff), dry_run=True)


def _cutoff(request: pb.PruneRunsRequest, clock: Clock) -> datetime:
    if request.HasField("before") == request.HasField("older_than_days"):
        raise InvalidArgument.of([Violation("before", "give either this or older_than_days, and not both")])
    if request.HasField("older_than_days"):
        return retention.days_ago(request.older_than_days, clock)
    cutoff = from_timestamp(request.before)
    retention.require_past(cutoff, "before", clock)
    return cutoff


def _pruned_message(cutoff: datetime, pruned: Pruned, *, dry_run: bool) -> pb.PruneRunsResponse:
    return pb.PruneRunsResponse(
        dry_run=dry_run,
        cutoff=to_timestamp(cutoff),
        runs=pruned.runs,
        steps=pruned.steps,
        occurrences=pruned.occurrences,
        events=pruned.events,
        complete=pruned.complete,
    )


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

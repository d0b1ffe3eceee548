"""LedgerService."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from baton.tasks.v1 import ledger_service_pb2 as pb
from baton.tasks.v1 import ledger_service_pb2_grpc as rpc
from google.api import httpbody_pb2
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis import call, telemetry
from services.chassis.call import caller
from services.chassis.clock import Clock, instant_text
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.paging import MAX_PAGE_BYTES, Cursors, page_limit
from services.tasks.convert import ledger as convert
from services.tasks.convert.run import run_status
from services.tasks.errors import PruneIncomplete
from services.tasks.models.ledger import Decision
from services.tasks.models.pruning import Age
from services.tasks.models.run import Run, RunStatus
from services.tasks.models.run_filter import RunFilter
from services.tasks.operations import ledger as operations
from services.tasks.operations import retention
from services.tasks.pruning import Pruner
from services.tasks.store import export, history, ledger

_Context = ServicerContext[Any, Any]
_Decided = TypeVar("_Decided", pb.ApproveLedgerRunResponse, pb.RejectLedgerRunResponse, pb.CancelLedgerRunResponse)
_Decide = pb.ApproveLedgerRunRequest | pb.RejectLedgerRunRequest | pb.CancelLedgerRunRequest
_CSV = "text/csv; charset=utf-8"
_LIST_LIMIT, _EXPORT_LIMIT = 100, 1000


class LedgerServicer(rpc.LedgerServiceServicer):
    """Runs that happen outside and are reported, next to those that happen here."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._pruner = Pruner(database)
        self._counters = {
            what: telemetry.meter().create_counter(f"{metric_names.LEDGER}.{what}", description=f"reported runs {what}")
            for what in ("created", "updated", "approved", "rejected", "cancelled")
        }

    async def CreateLedgerRun(
        self, request: pb.CreateLedgerRunRequest, context: _Context
    ) -> pb.CreateLedgerRunResponse:
        reporter, traceparent = caller(), telemetry.traceparent()

        def create(connection: Connection, clock: Clock) -> pb.CreateLedgerRunResponse:
            new = convert.new_run(request, clock.now())
            run = operations.create_run(connection, new, reporter, traceparent, clock)
            return pb.CreateLedgerRunResponse(run=convert.ledger_message(run))

        response = await self._idempotency.once(request, pb.CreateLedgerRunResponse, create)
        self._count("created")
        return response

    async def UpdateLedgerRun(
        self, request: pb.UpdateLedgerRunRequest, context: _Context
    ) -> pb.UpdateLedgerRunResponse:
        reporter = caller()

        def update(connection: Connection, clock: Clock) -> pb.UpdateLedgerRunResponse:
            changes = convert.changes(request, clock.now())
            run = operations.update_run(connection, request.id, changes, reporter, clock)
            return pb.UpdateLedgerRunResponse(run=convert.ledger_message(run))

        response = await self._idempotency.once(request, pb.UpdateLedgerRunResponse, update)
        self._count("updated")
        return response

    async def ListLedgerRuns(self, request: pb.ListLedgerRunsRequest, context: _Context) -> pb.ListLedgerRunsResponse:
        limit = request.limit if request.HasField("limit") else _LIST_LIMIT
        wanted = RunFilter(
            statuses=_statuses([request.status] if request.status else []),
            batch_ids=(request.run_id,) if request.run_id else (),
        )
        runs = await self._runs(wanted, limit=limit)
        items = [convert.ledger_message(run) for run in runs]
        if any(run.inputs is None for run in runs) or sum(item.ByteSize() for item in items) > 3 * MAX_PAGE_BYTES:
            description = "is more than one answer holds of these runs: ask for fewer, or page through them"
            raise InvalidArgument.of([Violation("limit", description)])
        return pb.ListLedgerRunsResponse(items=items)

    async def PageLedgerRuns(self, request: pb.PageLedgerRunsRequest, context: _Context) -> pb.PageLedgerRunsResponse:
        position, limit = self._cursors.decode(request), page_limit(request)
        runs = await self._runs(_filter(request), limit=limit + 1, before_id=str(position[0]) if position else None)
        # The page ends where it was too much to read what runs were given.
        request.limit = min(limit, sum(run.inputs is not None for run in runs)) or limit
        items, cursor = self._cursors.page(request, runs, convert.ledger_message, lambda run: run.id)
        return pb.PageLedgerRunsResponse(items=items, next_cursor=cursor)

    async def ExportLedgerRuns(
        self, request: pb.ExportLedgerRunsRequest, context: _Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        wanted = _filter(request)
        limit = request.limit if request.HasField("limit") else _EXPORT_LIMIT
        chunks = self._database.stream(
            lambda connection, clock: export.export_rows(connection, ledger.COLUMNS, wanted, limit)
        )
        async for chunk in chunks:
            yield httpbody_pb2.HttpBody(content_type=_CSV, data=chunk)

    async def ApproveLedgerRun(
        self, request: pb.ApproveLedgerRunRequest, context: _Context
    ) -> pb.ApproveLedgerRunResponse:
        return await self._decide(request, Decision.APPROVE, pb.ApproveLedgerRunResponse)

    async def RejectLedgerRun(
        self, request: pb.RejectLedgerRunRequest, context: _Context
    ) -> pb.RejectLedgerRunResponse:
        return await self._decide(request, Decision.REJECT, pb.RejectLedgerRunResponse)

    async def CancelLedgerRun(
        self, request: pb.CancelLedgerRunRequest, context: _Context
    ) -> pb.CancelLedgerRunResponse:
        return await self._decide(request, Decision.CANCEL, pb.CancelLedgerRunResponse)

    async def PruneLedgerRuns(
        self, request: pb.PruneLedgerRunsRequest, context: _Context
    ) -> pb.PruneLedgerRunsResponse:
        cutoff, admin = convert.instant(request.date, "date"), caller()
        # A repeated request is answered as before, without deleting what has ended since.
        if earlier := await self._idempotency.earlier_answer(request, pb.PruneLedgerRunsResponse):
            return earlier
        await self._database.read(lambda connection, clock: retention.require_past(cutoff, "date", clock))
        pruned = await self._pruner.prune_runs(cutoff, Age.STARTED)

        def finish(connection: Connection, clock: Clock) -> pb.PruneLedgerRunsResponse:
            retention.audit_pruning(connection, cutoff, pruned, admin.agent_id, request.request_id, clock)
            return pb.PruneLedgerRunsResponse(deleted=pruned.runs, cutoff=instant_text(cutoff))

        if not pruned.complete:
            await self._database.transact(finish)
            raise PruneIncomplete(pruned.runs)
        return await self._idempotency.once(request, pb.PruneLedgerRunsResponse, finish)

    async def _decide(self, request: _Decide, decision: Decision, response_type: type[_Decided]) -> _Decided:
        approver = caller()

        def decide(connection: Connection, clock: Clock) -> _Decided:
            run = operations.decide_run(
                connection, request.id, decision, request.note, approver, clock, request_id=request.request_id
            )
            return response_type(run=convert.ledger_message(run))

        response = await self._idempotency.once(request, response_type, decide)
        self._count(decision.approval_state.value)
        return response

    async def _runs(self, wanted: RunFilter, *, limit: int, before_id: str | None = None) -> list[Run]:
        """The runs that pass the filter, newest first, with what they were given, as far as one answer holds it."""

        def read(connection: Connection, clock: Clock) -> list[Run]:
            runs = history.list_runs(connection, wanted, limit=limit, before_id=before_id)
            return operations.with_inputs(connection, runs, MAX_PAGE_BYTES)

        return await self._database.read(read)

    def _count(self, what: str) -> None:
        """Counts what was done, once however often it was asked for; a count that fails fails nothing else."""
        serving = call.current.get()
        if serving is not None and serving.replayed:
            return
        with telemetry.measuring():
            self._counters[what].add(1)


def _filter(request: pb.PageLedgerRunsRequest | pb.ExportLedgerRunsRequest) -> RunFilter:
    return RunFilter(
        statuses=_statuses(request.status),
        tasks=tuple(request.task),
        since=convert.instant(request.since, "since") if request.since else None,
    )


def _statuses(values: Iterable[Any]) -> frozenset[RunStatus] | None:
    return frozenset(run_status(value) for value in values) or None

"""ProbeService, and the evaluations of TaskService."""

import logging
from typing import Any

from baton.tasks.v1 import probe_service_pb2 as pb
from baton.tasks.v1 import probe_service_pb2_grpc as rpc
from baton.tasks.v1 import task_service_pb2
from grpc.aio import ServicerContext

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.chassis.ids import stored_id
from services.chassis.paging import Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.tasks.convert import condition as convert
from services.tasks.models.condition import Evaluation
from services.tasks.operations import condition as operations
from services.tasks.spans import new_trace

_log = logging.getLogger(__name__)
_Context = ServicerContext[Any, Any]
_OUTCOME = "outcome"


class ProbeServicer(rpc.ProbeServiceServicer):
    """The probes of conditions, as workers do them."""

    def __init__(self, database: Database, work_wakeup: Wakeup) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        meter = telemetry.meter()
        self._evaluations = meter.create_counter(
            metric_names.EVALUATIONS, description="evaluations of conditions, by outcome: true, false or error"
        )
        self._occurrences = meter.create_counter(
            metric_names.OCCURRENCES, description="nominal times of schedules that were judged, by outcome"
        )
        self._refused = meter.create_counter(
            metric_names.PROBE_REPORTS_REFUSED, description="reports of probes whose lease was no longer held"
        )
        self._lag = meter.create_histogram(
            metric_names.PROBE_LAG, unit="s", description="from when a probe was due until it was leased"
        )

    async def LeaseProbes(self, request: pb.LeaseProbesRequest, context: _Context) -> pb.LeaseProbesResponse:
        owner, limit = stored_id(request.worker_id), request.limit if request.HasField("limit") else 1
        leased = await self._database.transact(
            lambda connection, clock: operations.lease_probes(connection, owner=owner, limit=limit, clock=clock)
        )
        for probe in leased:
            self._lag.record(probe.lag.total_seconds())
        return pb.LeaseProbesResponse(probes=map(convert.leased_message, leased))

    async def ReportProbes(self, request: pb.ReportProbesRequest, context: _Context) -> pb.ReportProbesResponse:
        reports = [convert.report(message) for message in request.reports]
        reported = await self._database.transact(
            lambda connection, clock: operations.report_probes(connection, reports, new_trace, clock)
        )
        self._tell(reported)
        if reported.runs:
            self._work_wakeup.notify(*{run.role for run in reported.runs})
        return pb.ReportProbesResponse(
            receipts=[
                pb.ProbeReceipt(task_id=report.lease.task_id, accepted=accepted)
                for report, accepted in zip(reports, reported.accepted, strict=True)
            ]
        )

    def _tell(self, reported: operations.Reported) -> None:
        for evaluation in reported.evaluations:
            self._evaluations.add(1, {_OUTCOME: _told(evaluation)})
        for occurrence in reported.occurrences:
            self._occurrences.add(1, {_OUTCOME: occurrence.outcome.value})
        if refused := reported.accepted.count(False):
            self._refused.add(refused)
            _log.warning("probe_reports_refused", extra={"count": refused})


class TaskEvaluations:
    """What the condition of a task told."""

    _database: Database
    _cursors: Cursors

    async def ListEvaluations(
        self, request: task_service_pb2.ListEvaluationsRequest, context: _Context
    ) -> task_service_pb2.ListEvaluationsResponse:
        position, limit, task_id = self._cursors.decode(request), page_limit(request), request.task_id
        before = int(position[0]) if position else None
        found = await self._database.read(
            lambda connection, clock: operations.list_evaluations(connection, task_id, limit=limit + 1, before=before)
        )
        items, cursor = self._cursors.page(
            request, found, convert.evaluation_message, lambda evaluation: evaluation.number
        )
        return task_service_pb2.ListEvaluationsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)


def _told(evaluation: Evaluation) -> str:
    return "error" if evaluation.holds is None else str(evaluation.holds).lower()

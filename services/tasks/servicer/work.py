"""WorkService."""

import asyncio
import logging
import time
from typing import Any

from baton.tasks.v1 import work_service_pb2 as pb
from baton.tasks.v1 import work_service_pb2_grpc as rpc
from grpc.aio import ServicerContext

from services.chassis import call, telemetry
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.tasks.convert import run as convert
from services.tasks.convert.times import to_timestamp
from services.tasks.models.run import LeasedRun, Released
from services.tasks.operations import work as operations
from services.tasks.wakeup import Wakeup

_log = logging.getLogger(__name__)
_Context = ServicerContext[Any, Any]
# Between wake-ups: other replicas' runs, and runs that only now become due, are found by looking.
_POLL_SECONDS = 0.5


class WorkServicer(rpc.WorkServiceServicer):
    """Runs, as workers do them."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup
        self._refused = telemetry.meter().create_counter(
            "baton.reports.refused", description="reports whose lease was no longer held"
        )
        self._returning: set[asyncio.Task[None]] = set()

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: _Context) -> pb.LeaseRunsResponse:
        limit = request.limit if request.HasField("limit") else 1
        until = time.monotonic() + request.wait_seconds
        while True:
            woken = self._wakeup.ticket()
            leased = await self._claim(request.worker_id, limit)
            left = until - time.monotonic()
            if leased or left <= 0:
                return pb.LeaseRunsResponse(runs=[convert.leased_message(run) for run in leased])
            await self._wakeup.wait(woken, min(left, _POLL_SECONDS))

    async def RenewRuns(self, request: pb.RenewRunsRequest, context: _Context) -> pb.RenewRunsResponse:
        leases = [convert.lease(message) for message in request.leases]
        held = await self._database.transact(lambda connection, clock: operations.renew_runs(connection, leases, clock))
        return pb.RenewRunsResponse(
            leases=[pb.RenewedLease(run_id=lease.run_id, expires_at=to_timestamp(held.get(lease))) for lease in leases]
        )

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: _Context) -> pb.ReportRunsResponse:
        reports = [convert.report(message, f"reports[{index}]") for index, message in enumerate(request.reports)]
        accepted = await self._database.transact(
            lambda connection, clock: operations.report_runs(connection, reports, clock)
        )
        if refused := accepted.count(False):
            self._refused.add(refused)
            _log.warning("reports_refused", extra={"count": refused})
        if any(isinstance(report.outcome, Released) for report in reports):
            self._wakeup.notify()
        return pb.ReportRunsResponse(
            receipts=[
                pb.ReportReceipt(run_id=report.lease.run_id, accepted=taken)
                for report, taken in zip(reports, accepted, strict=True)
            ]
        )

    async def _claim(self, worker_id: str, limit: int) -> list[LeasedRun]:
        claim = self._database.transact(
            lambda connection, clock: operations.lease_runs(connection, worker_id, limit, clock)
        )
        claiming = asyncio.create_task(claim)
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The worker has gone while its claim was being committed: it will never work on these runs. They are
            # given back by a task of its own, for this call may be cancelled more than once.
            returning = asyncio.create_task(self._give_back(claiming))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise

    async def _give_back(self, claiming: asyncio.Task[list[LeasedRun]]) -> None:
        # The call that claimed has ended, and so has the time that it had.
        call.current.set(None)
        try:
            if leased := await claiming:
                await self._database.transact(
                    lambda connection, clock: operations.release_runs(connection, leased, clock)
                )
                self._wakeup.notify()
        except ServiceError as error:
            # Then the reaper does it, when the leases end.
            _log.warning("claim_not_given_back", extra={"reason": error.reason})

"""WorkService."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from baton.tasks.v1 import work_service_pb2 as pb
from baton.tasks.v1 import work_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import call, telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.timestamps import to_timestamp
from services.tasks.convert import run as convert
from services.tasks.models.run import Released
from services.tasks.operations import work as operations
from services.tasks.wakeup import Wakeup

_log = logging.getLogger(__name__)
_Context = ServicerContext[Any, Any]
# Between wake-ups: other replicas' runs, and runs that only now become due, are found by looking.
_POLL_SECONDS = 0.5
# A quarter of what a message may have. One run alone is answered all the same: its payload of at most 1 MiB of
# JSON has at most 5.5 MiB here, and its saved outputs a sixteenth of that.
_MAX_ANSWER_BYTES = 4 * 1024 * 1024


class WorkServicer(rpc.WorkServiceServicer):
    """Runs, as workers do them."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup
        self._refused = telemetry.meter().create_counter(
            "baton.reports.refused", description="reports whose lease was no longer held"
        )
        self._leasing: set[asyncio.Task[Any]] = set()
        self._returning: set[asyncio.Task[None]] = set()
        self._stopping = False

    def stop(self) -> None:
        """Sends everybody who waits for work away, and who still comes: the answer is empty."""
        self._stopping = True
        self._wakeup.notify()

    async def finished(self) -> None:
        """Waits, once the server has stopped, for claims in progress and for what is given back of them."""
        while pending := self._leasing | self._returning:
            await asyncio.wait(pending)

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: _Context) -> pb.LeaseRunsResponse:
        limit = request.limit if request.HasField("limit") else 1
        until = time.monotonic() + request.wait_seconds
        with self._in_progress():
            while not self._stopping:
                woken = self._wakeup.ticket()
                answer = await self._claim(request.worker_id, limit)
                left = until - time.monotonic()
                if answer.runs or left <= 0:
                    return answer
                await self._wakeup.wait(woken, min(left, _POLL_SECONDS))
        return pb.LeaseRunsResponse()

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

    @contextmanager
    def _in_progress(self) -> Iterator[None]:
        """Makes `finished` wait for the current call."""
        leasing = asyncio.current_task()
        assert leasing is not None
        self._leasing.add(leasing)
        try:
            yield
        finally:
            self._leasing.discard(leasing)

    async def _claim(self, worker_id: str, limit: int) -> pb.LeaseRunsResponse:
        def claim(connection: Connection, clock: Clock) -> pb.LeaseRunsResponse:
            leased = operations.lease_runs(connection, worker_id, limit, clock)
            messages = convert.leased_messages(leased, _MAX_ANSWER_BYTES)
            operations.leave_runs(connection, leased[len(messages) :])
            return pb.LeaseRunsResponse(runs=messages)

        claiming = asyncio.create_task(self._database.transact(claim))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The worker has gone while its claim was being committed: it will never work on these runs. They are
            # given back by a task of its own, for this call may be cancelled more than once.
            returning = asyncio.create_task(self._give_back(claiming))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            raise

    async def _give_back(self, claiming: asyncio.Task[pb.LeaseRunsResponse]) -> None:
        # The call that claimed has ended, and so has the time that it had.
        call.current.set(None)
        try:
            if leases := [convert.lease(run.lease) for run in (await claiming).runs]:
                await self._database.transact(
                    lambda connection, clock: operations.release_runs(connection, leases, clock)
                )
                self._wakeup.notify()
        except ServiceError as error:
            # Then the reaper does it, when the leases end.
            _log.warning("claim_not_given_back", extra={"reason": error.reason})

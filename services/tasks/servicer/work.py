"""WorkService."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from baton.tasks.v1 import work_service_pb2 as pb
from baton.tasks.v1 import work_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis import call, telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.ids import stored_id
from services.chassis.wakeup import Wakeup
from services.tasks.attendance import Attendance
from services.tasks.convert import work as convert
from services.tasks.models.run import LeasedRun
from services.tasks.operations import work as operations
from services.tasks.operations.approval import use_approval

_log = logging.getLogger(__name__)
_Context = ServicerContext[Any, Any]
_Claimed = tuple[pb.LeaseRunsResponse, bool, Sequence[LeasedRun]]
# Between wake-ups: other replicas' runs, and runs that only now become due, are found by looking.
_POLL_SECONDS = 0.5
# When others claim the same runs right now: theirs will be done in a moment.
_CONTENDED_SECONDS = 0.01
_CONTENDED_LOOKS = 5
_ITEMS_READ = 200
# A quarter of what a message may have. One run alone is answered all the same: its payload of at most 1 MiB of
# JSON has at most 5.5 MiB here, and its saved outputs a sixteenth of that.
_MAX_ANSWER_BYTES = 4 * 1024 * 1024


class WorkServicer(rpc.WorkServiceServicer):
    """Runs, as workers do them."""

    def __init__(
        self, database: Database, wakeup: Wakeup, attendance: Attendance, dispatch_wakeup: Wakeup, clock: Clock
    ) -> None:
        self._database = database
        self._wakeup = wakeup
        self._dispatch_wakeup = dispatch_wakeup
        self._attendance = attendance
        self._clock = clock
        self._refused = telemetry.meter().create_counter(
            metric_names.REPORTS_REFUSED, description="reports whose lease was no longer held"
        )
        meter = telemetry.meter()
        self._waits = meter.create_histogram(
            metric_names.QUEUE_WAIT, unit="s", description="from when runs were due until they were leased, by priority"
        )
        self._heartbeats = meter.create_counter(
            metric_names.WORKER_HEARTBEAT, description="calls in which workers asked for work or renewed leases"
        )
        self._ended = meter.create_counter(metric_names.RUNS, description="reports that ended attempts, by outcome")
        self._leasing: set[asyncio.Task[Any]] = set()
        self._returning: set[asyncio.Task[None]] = set()
        self._stopping = False

    def stop(self) -> None:
        """Sends everybody who waits for work away, and who still comes: the answer is empty."""
        self._stopping = True
        self._wakeup.wake()

    async def finished(self) -> None:
        """Waits, once the server has stopped, for claims in progress and for what is given back of them."""
        while pending := self._leasing | self._returning:
            await asyncio.wait(pending)

    async def LeaseRuns(self, request: pb.LeaseRunsRequest, context: _Context) -> pb.LeaseRunsResponse:
        self._heartbeats.add(1)
        until = time.monotonic() + request.wait_seconds
        asked = _Asked.of(request, call.caller())
        looks = 0
        with self._in_progress():
            while not self._stopping:
                woken = self._wakeup.ticket(asked.role)
                self._attendance.note(asked.worker_id, asked.role, asked.agent_id)
                answer, contended, leased = await self._claim(asked)
                for run in leased:
                    self._waits.record(max(0.0, run.waited.total_seconds()), {"priority": run.priority})
                looks += 1
                hurry = contended and looks < _CONTENDED_LOOKS
                left = until - time.monotonic()
                if answer.runs or (left <= 0 and not hurry):
                    return answer
                pause = random.uniform(0, _CONTENDED_SECONDS) if hurry else min(left, _POLL_SECONDS)
                await self._wakeup.wait(woken, pause)
        return pb.LeaseRunsResponse()

    async def RenewRuns(self, request: pb.RenewRunsRequest, context: _Context) -> pb.RenewRunsResponse:
        self._heartbeats.add(1)
        leases = [convert.lease(message) for message in request.leases]
        held = await self._database.transact(lambda connection, clock: operations.renew_runs(connection, leases, clock))
        return pb.RenewRunsResponse(leases=[convert.renewed_message(lease, held.get(lease)) for lease in leases])

    async def ReportRuns(self, request: pb.ReportRunsRequest, context: _Context) -> pb.ReportRunsResponse:
        now = self._clock.now()
        reports = [convert.report(message, f"reports[{index}]", now) for index, message in enumerate(request.reports)]
        reported = await self._database.transact(
            lambda connection, clock: operations.report_runs(connection, reports, clock)
        )
        for message, receipt in zip(request.reports, reported.receipts, strict=True):
            if receipt.accepted and (outcome := message.WhichOneof("outcome")):
                self._ended.add(1, {"outcome": outcome})
        if refused := sum(not receipt.accepted for receipt in reported.receipts):
            self._refused.add(refused)
            _log.warning("reports_refused", extra={"count": refused})
        if reported.roles:
            self._wakeup.notify(*reported.roles)
        if reported.events:
            self._dispatch_wakeup.notify()
        return pb.ReportRunsResponse(
            receipts=[
                convert.receipt_message(report, receipt)
                for report, receipt in zip(reports, reported.receipts, strict=True)
            ]
        )

    async def UseApproval(self, request: pb.UseApprovalRequest, context: _Context) -> pb.UseApprovalResponse:
        lease, approval_id = convert.lease(request.lease), stored_id(request.approval_id)
        digest = convert.used_digest(request)
        await self._database.transact(
            lambda connection, clock: use_approval(connection, lease, approval_id, digest, clock)
        )
        return pb.UseApprovalResponse()

    async def ListItems(self, request: pb.ListItemsRequest, context: _Context) -> pb.ListItemsResponse:
        lease, after = convert.lease(request.lease), request.after if request.HasField("after") else None
        items = await self._database.read(
            lambda connection, clock: operations.list_items(
                connection, lease, request.position, limit=_ITEMS_READ, after=after
            )
        )
        return convert.items_response(items, _ITEMS_READ, with_output=request.with_output)

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

    async def _claim(self, asked: "_Asked") -> _Claimed:
        """The answer, whether others claim the same runs right now, and what was leased."""

        def claim(connection: Connection, clock: Clock) -> _Claimed:
            claimed = operations.lease_runs(
                connection,
                worker_id=asked.worker_id,
                agent_id=asked.agent_id,
                role=asked.role,
                limit=asked.limit,
                clock=clock,
            )
            messages = convert.leased_messages(claimed.runs, _MAX_ANSWER_BYTES)
            operations.leave_runs(connection, claimed.runs[len(messages) :])
            return pb.LeaseRunsResponse(runs=messages), claimed.contended, claimed.runs[: len(messages)]

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

    async def _give_back(self, claiming: asyncio.Task[_Claimed]) -> None:
        # The call that claimed has ended, and so has the time that it had.
        call.current.set(None)
        try:
            answer, _, _ = await claiming
            if leases := [convert.lease(run.lease) for run in answer.runs]:
                roles = await self._database.transact(
                    lambda connection, clock: operations.release_runs(connection, leases, clock)
                )
                self._wakeup.notify(*roles)
        except ServiceError as error:
            # Then the reaper does it, when the leases end.
            _log.warning("claim_not_given_back", extra={"reason": error.reason})


@dataclass(frozen=True)
class _Asked:
    """What is wanted, and by whom."""

    agent_id: str
    worker_id: str
    role: str
    limit: int

    @classmethod
    def of(cls, request: pb.LeaseRunsRequest, caller: Caller) -> "_Asked":
        """Raises RunsOfAnotherRole."""
        return cls(
            agent_id=caller.agent_id,
            worker_id=stored_id(request.worker_id) or caller.agent_id,
            role=operations.role_to_lease(caller, request.role),
            limit=request.limit if request.HasField("limit") else 1,
        )

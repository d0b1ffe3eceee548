"""Gets work: one long-poll after the other, each for as many runs as there is room for."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import ServiceError
from services.worker.held import HeldRun, HeldRuns

# Short, because a worker that stops waits for the answer, and because a lease is counted from when it was asked for.
WAIT_SECONDS = 2
MAX_BATCH = 100
# What an answer may take beyond the wait itself.
_ANSWER_SECONDS = 10
# How long a worker that stops waits for the last answer.
_LAST_ANSWER_SECONDS = WAIT_SECONDS + 2
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_log = logging.getLogger(__name__)

Handle = Callable[[work_service_pb2.LeasedRun, HeldRun], Coroutine[Any, Any, None]]


class Leasing:
    """Leases runs and starts a task for each: `execute`, or `give_back` for those that come when it is over."""

    def __init__(
        self,
        stub: work_service_pb2_grpc.WorkServiceStub,
        worker_id: str,
        held: HeldRuns,
        execute: Handle,
        give_back: Handle,
        *,
        role: str = "",
    ) -> None:
        self._stub = stub
        self._worker_id = worker_id
        self._role = role
        self._held = held
        self._execute = execute
        self._give_back = give_back
        self._asking: asyncio.Task[None] | None = None
        self._over = False
        self._failures = telemetry.meter().create_counter(
            metric_names.WORKER_LEASE_FAILURES, description="calls for work that failed"
        )

    async def run(self) -> None:
        """Leases until cancelled. While the service is away it is asked with growing pauses, up to 5 s."""
        try:
            await self._lease_on()
        finally:
            self._over = True

    async def end(self) -> None:
        """Waits, after `run` was cancelled, for an answer that may be on its way; what it brings is given back.

        A call that is cancelled after the service has answered leaves runs that nobody works on until their leases
        end. One that has no answer in time is cancelled all the same.
        """
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=_LAST_ANSWER_SECONDS)
            self._asking.cancel()

    async def _lease_on(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._held.wait_for_room()
            self._asking = asyncio.create_task(self._lease())
            try:
                await asyncio.shield(self._asking)
                pause = _FIRST_PAUSE_SECONDS
            except ServiceError as error:
                self._failures.add(1, {"reason": error.reason})
                _log.warning("lease_failed", extra={"reason": error.reason, "error": error.message})
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _lease(self) -> None:
        asked_at = asyncio.get_running_loop().time()
        request = work_service_pb2.LeaseRunsRequest(
            worker_id=self._worker_id,
            limit=min(self._held.free, MAX_BATCH),
            wait_seconds=WAIT_SECONDS,
            role=self._role,
        )
        response = await self._stub.LeaseRuns(request, timeout=WAIT_SECONDS + _ANSWER_SECONDS)
        for leased in response.runs:
            self._start(leased, HeldRun(leased.lease, self._held, asked_at))

    def _start(self, leased: work_service_pb2.LeasedRun, held: HeldRun) -> None:
        if held.good_until <= asyncio.get_running_loop().time():
            # The answer took so long that somebody else may hold the run by now.
            _log.warning("lease_lost", extra={"run_id": leased.lease.run_id, "attempt": leased.lease.attempt})
            return
        handle = self._give_back if self._over else self._execute
        held.start(asyncio.create_task(handle(leased, held)))

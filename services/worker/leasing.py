"""Gets work: one long-poll after the other, each for as many runs as there is room for."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc

from services.chassis import telemetry
from services.chassis.errors import ServiceError
from services.worker.held import HeldRun, HeldRuns

WAIT_SECONDS = 20
MAX_BATCH = 100
# What an answer may take beyond the wait itself.
_ANSWER_SECONDS = 10
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_log = logging.getLogger(__name__)

Execute = Callable[[work_service_pb2.LeasedRun, HeldRun], Coroutine[Any, Any, None]]


class Leasing:
    """Leases runs and starts a task for each."""

    def __init__(
        self,
        stub: work_service_pb2_grpc.WorkServiceStub,
        worker_id: str,
        held: HeldRuns,
        execute: Execute,
        *,
        role: str = "",
    ) -> None:
        self._stub = stub
        self._worker_id = worker_id
        self._role = role
        self._held = held
        self._execute = execute
        self._failures = telemetry.meter().create_counter(
            "baton.worker.lease.failures", description="calls for work that failed"
        )

    async def run(self) -> None:
        """Leases until cancelled. While the service is away it is asked with growing pauses, up to 5 s."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._held.wait_for_room()
            try:
                await self._lease()
                pause = _FIRST_PAUSE_SECONDS
            except ServiceError as error:
                self._failures.add(1, {"reason": error.reason})
                _log.warning("lease_failed", extra={"reason": error.reason, "error": error.message})
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _lease(self) -> None:
        request = work_service_pb2.LeaseRunsRequest(
            worker_id=self._worker_id,
            limit=min(self._held.free, MAX_BATCH),
            wait_seconds=WAIT_SECONDS,
            role=self._role,
        )
        response = await self._stub.LeaseRuns(request, timeout=WAIT_SECONDS + _ANSWER_SECONDS)
        for leased in response.runs:
            held = HeldRun(leased.lease, self._held)
            held.start(asyncio.create_task(self._execute(leased, held)))

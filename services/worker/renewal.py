"""Keeps the leases of the runs in progress, apart from the work itself."""

import asyncio
import logging
from collections.abc import Sequence

from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc

from services.chassis import telemetry
from services.chassis.errors import ServiceError
from services.worker.held import HeldRun, HeldRuns

MAX_BATCH = 100
_ANSWER_SECONDS = 5.0
# After a failure there are several more tries before a lease must be given up.
_TRIES_PER_INTERVAL = 10
_log = logging.getLogger(__name__)


class Renewal:
    """Renews all leases in one call, at a third of their length."""

    def __init__(self, stub: work_service_pb2_grpc.WorkServiceStub, held: HeldRuns) -> None:
        self._stub = stub
        self._held = held
        self._failures = telemetry.meter().create_counter(
            "baton.worker.renew.failures", description="renewals that failed"
        )

    async def run(self) -> None:
        """Renews until cancelled. A run whose lease cannot be renewed in time stops itself: see HeldRun."""
        interval = self._held.timing.renew_every
        while True:
            renewed = await self._renew_all()
            await asyncio.sleep(interval if renewed else interval / _TRIES_PER_INTERVAL)

    async def _renew_all(self) -> bool:
        runs = list(self._held)
        batches = [runs[start : start + MAX_BATCH] for start in range(0, len(runs), MAX_BATCH)]
        return all([await self._renew(batch) for batch in batches])

    async def _renew(self, runs: Sequence[HeldRun]) -> bool:
        asked_at = asyncio.get_running_loop().time()
        request = work_service_pb2.RenewRunsRequest(leases=[run.lease for run in runs])
        try:
            response = await self._stub.RenewRuns(request, timeout=_ANSWER_SECONDS)
        except ServiceError as error:
            self._failures.add(1, {"reason": error.reason})
            _log.warning("renew_failed", extra={"reason": error.reason, "error": error.message, "runs": len(runs)})
            return False
        answers = {answer.run_id: answer for answer in response.leases}
        for run in runs:
            answer = answers.get(run.lease.run_id)
            if answer is None:
                continue
            if answer.HasField("expires_at"):
                run.renewed(asked_at)
                run.cancel_requested |= answer.cancel_requested
            else:
                run.lose()
        return True

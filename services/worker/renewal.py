"""Keeps the leases of the runs in progress, apart from the work itself."""

import asyncio
import logging
from collections.abc import Sequence

from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import ServiceError
from services.worker.held import HeldRun, HeldRuns

MAX_BATCH = 100
_ANSWER_SECONDS = 5.0
# How often it is looked, and tried again after a failure: several times before a lease must be given up.
_TRIES_PER_INTERVAL = 10
_log = logging.getLogger(__name__)


class Renewal:
    """Renews all leases together, as soon as one of them has run for a third of its length."""

    def __init__(self, stub: work_service_pb2_grpc.WorkServiceStub, held: HeldRuns) -> None:
        self._stub = stub
        self._held = held
        self._failures = telemetry.meter().create_counter(
            metric_names.WORKER_RENEW_FAILURES, description="renewals that failed"
        )

    async def run(self) -> None:
        """Renews until cancelled. A run whose lease cannot be renewed in time stops itself: see HeldRun."""
        loop = asyncio.get_running_loop()
        while True:
            # Those that are lost may be somebody else's; if they are nobody's, nobody could have them.
            runs = [run for run in self._held if not run.lost]
            if any(run.renew_at <= loop.time() for run in runs):
                await self._renew_all(runs)
            await asyncio.sleep(self._held.timing.renew_every / _TRIES_PER_INTERVAL)

    async def _renew_all(self, runs: Sequence[HeldRun]) -> None:
        """Side by side: one after the other, slow answers to the first would cost the last its lease."""
        batches = [runs[start : start + MAX_BATCH] for start in range(0, len(runs), MAX_BATCH)]
        await asyncio.gather(*map(self._renew, batches))

    async def _renew(self, runs: Sequence[HeldRun]) -> None:
        asked_at = asyncio.get_running_loop().time()
        request = work_service_pb2.RenewRunsRequest(leases=[run.lease for run in runs])
        try:
            response = await self._stub.RenewRuns(request, timeout=_ANSWER_SECONDS)
        except ServiceError as error:
            self._failures.add(1, {"reason": error.reason})
            _log.warning("renew_failed", extra={"reason": error.reason, "error": error.message, "runs": len(runs)})
            return
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

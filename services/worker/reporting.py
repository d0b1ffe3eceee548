"""Reports what was done. Reports that come while one is under way travel together in the next."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc
from opentelemetry import context as otel_context

from services.chassis.errors import (
    FailedPrecondition,
    Internal,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
)
from services.worker.patience import ANSWER_SECONDS, WAITED_OUT, until_answered

MAX_BATCH = 100
MAX_BATCH_BYTES = 1024 * 1024
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
# Who may not report may not renew, either, and so the lease ends.
_WAITED_OUT = (*WAITED_OUT, PermissionDenied)
# These may pass, but must not hold a run for ever.
_TRIED_AGAIN = (Internal, ResourceExhausted)
_TRIES = 5
_log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The report was refused: somebody else holds the run, or it has ended."""


@dataclass
class _Pending:
    report: work_service_pb2.RunReport
    receipt: "asyncio.Future[work_service_pb2.ReportReceipt]"
    # The batch continues the trace of its first report.
    context: otel_context.Context = field(default_factory=otel_context.get_current)


class Reporter:
    """Sends reports, one call at a time; what waits meanwhile is one batch (group commit)."""

    def __init__(self, stub: work_service_pb2_grpc.WorkServiceStub) -> None:
        self._stub = stub
        self._waiting: list[_Pending] = []
        self._sender: asyncio.Task[None] | None = None

    async def send(self, report: work_service_pb2.RunReport) -> work_service_pb2.ReportReceipt:
        """Answers the receipt once the report is recorded. An idle reporter sends at once.

        Raises LeaseLost when the report is refused, and ServiceError when it can never be recorded. While the
        service is away it is tried again, for as long as the caller waits: cancelling takes it back.
        """
        pending = _Pending(report, asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_waiting())
        receipt = await pending.receipt
        if not receipt.accepted:
            raise LeaseLost
        return receipt

    async def list_items(self, request: work_service_pb2.ListItemsRequest) -> work_service_pb2.ListItemsResponse:
        """What is recorded of items. Raises LeaseLost, and ServiceError when it can never be answered."""
        try:
            return await until_answered(lambda: self._stub.ListItems(request, timeout=ANSWER_SECONDS))
        except FailedPrecondition:
            raise LeaseLost from None

    async def _send_waiting(self) -> None:
        while batch := self._next_batch():
            try:
                await self._deliver(batch)
            except Exception:
                # The sender goes on, and nobody is left to wait for an answer that never comes.
                _log.exception("report_crashed", extra={"reports": len(batch)})
                _refuse(batch)

    def _next_batch(self) -> list[_Pending]:
        self._waiting = [pending for pending in self._waiting if not pending.receipt.done()]
        batch: list[_Pending] = []
        size = 0
        for pending in self._waiting[:MAX_BATCH]:
            size += pending.report.ByteSize()
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(pending)
        self._waiting = self._waiting[len(batch) :]
        return batch

    async def _deliver(self, batch: Sequence[_Pending]) -> None:
        tries, pause = 1, _PAUSE_SECONDS
        while batch:
            try:
                self._settle(batch, await self._call(batch))
                return
            except ServiceError as error:
                _log.warning("report_failed", extra={"reason": error.reason, "error": error.message})
                if not isinstance(error, _WAITED_OUT) and not (isinstance(error, _TRIED_AGAIN) and tries < _TRIES):
                    await self._give_up(batch, error)
                    return
            await asyncio.sleep(pause)
            tries, pause = tries + 1, min(pause * 2, _LONGEST_PAUSE_SECONDS)
            batch = [pending for pending in batch if not pending.receipt.done()]

    async def _call(self, batch: Sequence[_Pending]) -> work_service_pb2.ReportRunsResponse:
        request = work_service_pb2.ReportRunsRequest(reports=[pending.report for pending in batch])
        token = otel_context.attach(batch[0].context)
        try:
            response = await self._stub.ReportRuns(request, timeout=ANSWER_SECONDS)
        finally:
            otel_context.detach(token)
        if len(response.receipts) != len(batch):
            raise Internal("the service answered another number of reports than it was sent")
        return response

    async def _give_up(self, batch: Sequence[_Pending], error: ServiceError) -> None:
        """One bad report must not spoil the others of its batch."""
        if len(batch) == 1:
            if not batch[0].receipt.done():
                batch[0].receipt.set_exception(error)
            return
        for pending in batch:
            await self._deliver([pending])

    @staticmethod
    def _settle(batch: Sequence[_Pending], response: work_service_pb2.ReportRunsResponse) -> None:
        for pending, receipt in zip(batch, response.receipts, strict=True):
            if not pending.receipt.done():
                pending.receipt.set_result(receipt)


def _refuse(batch: Sequence[_Pending]) -> None:
    for pending in batch:
        if not pending.receipt.done():
            pending.receipt.set_exception(Internal("the report could not be sent"))

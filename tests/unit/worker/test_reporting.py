"""Reports when sending them fails in a way that nobody foresaw."""

import asyncio

import pytest
from baton.tasks.v1 import work_service_pb2

from services.chassis.errors import Internal
from services.worker.reporting import Reporter
from tests.support.waiting import await_until


class FaultyStub:
    """Fails in the client itself, once, after a moment; then everything is accepted."""

    def __init__(self) -> None:
        self.broken = True
        self.going_on = asyncio.Event()

    async def ReportRuns(
        self, request: work_service_pb2.ReportRunsRequest, timeout: float
    ) -> work_service_pb2.ReportRunsResponse:
        if self.broken:
            self.broken = False
            await self.going_on.wait()
            raise ValueError("metadata was invalid")
        receipts = [work_service_pb2.ReportReceipt(accepted=True) for _ in request.reports]
        return work_service_pb2.ReportRunsResponse(receipts=receipts)


async def test_an_unforeseen_failure_is_told_to_whoever_waits_and_the_next_report_is_sent() -> None:
    stub = FaultyStub()
    stub.going_on.set()
    reporter = Reporter(stub)  # type: ignore[arg-type]
    report = work_service_pb2.RunReport()
    async with asyncio.timeout(2):
        first, second = asyncio.create_task(reporter.send(report)), asyncio.create_task(reporter.send(report))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [Internal, Internal]
        await reporter.send(report)


async def test_reports_that_wait_while_another_fails_are_still_sent() -> None:
    stub = FaultyStub()
    reporter = Reporter(stub)  # type: ignore[arg-type]
    async with asyncio.timeout(2):
        failing = asyncio.create_task(reporter.send(work_service_pb2.RunReport()))
        await await_until(lambda: not stub.broken)
        waiting = asyncio.create_task(reporter.send(work_service_pb2.RunReport()))
        await asyncio.sleep(0)
        stub.going_on.set()
        with pytest.raises(Internal):
            await failing
        await waiting

"""Which leases are renewed, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from baton.tasks.v1 import work_service_pb2, work_service_pb2_grpc

from services.chassis.ids import new_id
from services.worker.held import HeldRun, HeldRuns, LeaseTiming
from services.worker.renewal import MAX_BATCH, Renewal
from tests.support.fake_tasks import FakeTasks
from tests.support.grpc import channel_of
from tests.support.waiting import await_until


class Renewing(FakeTasks):
    """Answers renewals when so many are asked for at one time, and knows for which runs."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = asyncio.Barrier(1)
        self.asked: list[set[str]] = []

    async def RenewRuns(self, request: Any, context: Any) -> work_service_pb2.RenewRunsResponse:
        self.asked.append({lease.run_id for lease in request.leases})
        await self.at_once.wait()
        return await super().RenewRuns(request, context)


class Holder:
    """Holds runs, and renews them; nothing is done in them."""

    def __init__(self, tasks: Renewing, stub: work_service_pb2_grpc.WorkServiceStub, timing: LeaseTiming) -> None:
        self._tasks = tasks
        self._stub = stub
        self.runs = HeldRuns(1000, timing)
        self.let_go = asyncio.Event()

    async def hold(self, count: int, *, asked_ago: float = 0.0, stubborn: bool = False) -> list[HeldRun]:
        for _ in range(count):
            await self._tasks.enqueue()
        request = work_service_pb2.LeaseRunsRequest(worker_id=new_id(), limit=count, wait_seconds=1)
        answer = await self._stub.LeaseRuns(request)
        asked_at = asyncio.get_running_loop().time() - asked_ago
        held = [HeldRun(leased.lease, self.runs, asked_at) for leased in answer.runs]
        for run in held:
            run.start(asyncio.create_task(self._work(stubborn)))
        await asyncio.sleep(0)  # so that each has begun
        return held

    async def _work(self, stubborn: bool) -> None:
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            if stubborn:
                await self.let_go.wait()


@pytest.fixture
async def tasks() -> AsyncIterator[Renewing]:
    fake = Renewing()
    async with fake.serving():
        yield fake


@asynccontextmanager
async def holding(tasks: Renewing, timing: LeaseTiming) -> AsyncIterator[Holder]:
    async with channel_of(tasks.address) as channel:
        stub = work_service_pb2_grpc.WorkServiceStub(channel)
        holder = Holder(tasks, stub, timing)
        renewing = asyncio.create_task(Renewal(stub, holder.runs).run())
        try:
            yield holder
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            holder.let_go.set()
            assert await holder.runs.wait_until_empty(5)


async def test_batches_are_renewed_side_by_side(tasks: Renewing) -> None:
    tasks.at_once = asyncio.Barrier(3)
    async with holding(tasks, LeaseTiming(renew_every=0.01)) as holder:
        held = await holder.hold(2 * MAX_BATCH + 1)
        await await_until(lambda: tasks.renewed >= len(held), timeout=4)


async def test_a_run_that_is_lost_is_not_renewed_though_it_has_not_stopped_yet(tasks: Renewing) -> None:
    async with holding(tasks, LeaseTiming(renew_every=0.01)) as holder:
        (kept,) = await holder.hold(1)
        (lost,) = await holder.hold(1, stubborn=True)
        lost.lose()
        tasks.asked.clear()
        await await_until(lambda: len(tasks.asked) >= 4)
        assert lost in list(holder.runs), "it stopped: the test shows nothing"
    # The first may have been on its way.
    assert set().union(*tasks.asked[1:]) == {kept.lease.run_id}


async def test_a_lease_that_was_long_on_its_way_is_renewed_before_it_must_be_given_up(tasks: Renewing) -> None:
    async with holding(tasks, LeaseTiming(renew_every=2, give_up_after=3)) as holder:
        await holder.hold(1)
        (late,) = await holder.hold(1, asked_ago=2)
        await await_until(lambda: late.renew_at > asyncio.get_running_loop().time() or late.lost)
        assert not late.lost


async def test_one_that_must_be_given_up_before_the_others_is(tasks: Renewing) -> None:
    tasks.fail("RenewRuns", 10_000)
    async with holding(tasks, LeaseTiming(renew_every=1, give_up_after=60)) as holder:
        (fresh,) = await holder.hold(1)
        (late,) = await holder.hold(1, asked_ago=59.9)
        await await_until(lambda: late.lost)
        assert not fresh.lost

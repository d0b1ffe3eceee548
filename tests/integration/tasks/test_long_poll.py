"""Waiting for work."""

import asyncio
import time
from itertools import chain

import pytest
from baton.tasks.v1.work_service_pb2 import LeaseRunsRequest, RunReport

from services.chassis.errors import DeadlineExceeded
from services.chassis.ids import new_id
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import PROMPTLY, locked_queue, waiting_workers


def lease_request(limit: int = 100) -> LeaseRunsRequest:
    """The request of a worker that waits for 10 seconds."""
    return LeaseRunsRequest(worker_id=new_id(), limit=limit, wait_seconds=10)


async def test_without_work_the_answer_is_empty_at_once(tasks: Tasks) -> None:
    await tasks.lease()
    began = time.monotonic()
    assert await tasks.lease() == []
    assert time.monotonic() - began < 1


async def test_without_work_the_answer_is_empty_when_the_time_is_over(tasks: Tasks) -> None:
    began = time.monotonic()
    assert await tasks.lease(wait_seconds=1) == []
    assert 0.99 < time.monotonic() - began < 3


@pytest.mark.usefixtures("hints_only")
async def test_a_waiting_worker_gets_a_run_as_soon_as_it_is_queued(tasks: Tasks) -> None:
    task = await tasks.create()
    took = []
    for _ in range(4):
        (waiting,) = await waiting_workers(tasks)
        began = time.monotonic()
        run_id = await tasks.run_now(task.id)
        assert await asyncio.wait_for(waiting, PROMPTLY) == [run_id]
        took.append(time.monotonic() - began)
    # The best of four, for the machine may be busy.
    assert min(took) < 0.1


@pytest.mark.usefixtures("hints_only")
async def test_a_run_given_back_wakes_a_waiting_worker(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    (waiting,) = await waiting_workers(tasks)
    await tasks.report(RunReport(lease=leased.lease, released={}))
    assert await asyncio.wait_for(waiting, PROMPTLY) == [run_id]


async def test_a_run_that_becomes_due_meanwhile_is_found(tasks: Tasks) -> None:
    task = await tasks.create()
    (waiting,) = await waiting_workers(tasks)
    # Queued by another replica, of which no hint comes.
    (run_id,) = await tasks.queue_runs(task.id, 1)
    assert await waiting == [run_id]


@pytest.mark.usefixtures("hints_only")
async def test_each_of_many_waiting_workers_gets_a_run_of_its_own(tasks: Tasks) -> None:
    task = await tasks.create()
    waiting = await waiting_workers(tasks, 5)
    run_ids = [await tasks.run_now(task.id) for _ in range(5)]
    found = await asyncio.wait_for(asyncio.gather(*waiting), PROMPTLY)
    assert sorted(chain.from_iterable(found)) == sorted(run_ids)


@pytest.mark.usefixtures("hints_only")
async def test_a_worker_that_goes_while_it_waits_takes_nothing_along(tasks: Tasks) -> None:
    task = await tasks.create()
    for _ in range(4):
        (gone,) = await waiting_workers(tasks)
        gone.cancel()
    run_id = await tasks.run_now(task.id)
    (leased,) = await tasks.lease(wait_seconds=2)
    assert leased.lease.run_id == run_id


async def test_a_worker_that_goes_during_its_claim_leaves_the_run(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    for patience in range(5):
        async with locked_queue(tasks):
            call = asyncio.ensure_future(tasks.work.LeaseRuns(lease_request()))
            await asyncio.wait([call], timeout=0.02 * patience)
            call.cancel()
            await asyncio.wait([call])
        await comes_back(tasks, run_id)


async def test_a_worker_whose_time_ends_during_its_claim_leaves_the_run(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    for patience in range(1, 4):
        async with locked_queue(tasks):
            with pytest.raises(DeadlineExceeded):
                await tasks.work.LeaseRuns(lease_request(), timeout=0.1 * patience)
        await comes_back(tasks, run_id)


async def comes_back(tasks: Tasks, run_id: str) -> None:
    """Waits for a run to be leased again, and gives it back; the lost lease would have lasted for 30 seconds.

    It may be leased in between by the claim of the worker that has gone, so that it is seen queued proves nothing.
    """
    (leased,) = await tasks.lease(wait_seconds=5)
    assert leased.lease.run_id == run_id
    # Nobody else writes under this lease, so the run is not taken away again.
    assert await tasks.report(RunReport(lease=leased.lease, released={})) == [True]

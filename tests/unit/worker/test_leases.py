"""Leases that came in one answer share their token, and are kept each for itself."""

from services.worker.held import LeaseTiming
from tests.support.fake_tasks import FakeTasks
from tests.support.mcp_servers import slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

LONG = {"uses": "mis.slow", "with": {"seconds": 60}}


async def test_every_run_of_a_batch_outlasts_its_lease(tasks: FakeTasks, working: Working, http_server: str) -> None:
    runs = [await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 1}}) for _ in range(4)]
    async with working(timing=LeaseTiming(renew_every=0.1, give_up_after=0.5)):
        await await_until(lambda: all(run.held for run in runs))
        assert len({run.token for run in runs}) == 1
        for run in runs:
            await tasks.ended(run)
    assert [(run.attempt, run.outcome is not None) for run in runs] == [(1, True)] * 4


async def test_every_run_of_a_batch_takes_a_slot(tasks: FakeTasks, working: Working, http_server: str) -> None:
    runs = [await tasks.enqueue(LONG) for _ in range(5)]
    async with working(concurrency=3, grace_seconds=0, timing=LeaseTiming(renew_every=0.02)):
        await await_until(lambda: tasks.renewed >= 9)
        assert (sum(run.held for run in runs), tasks.polls) == (3, 0)


async def test_stopping_gives_a_whole_batch_back(tasks: FakeTasks, working: Working, http_server: str) -> None:
    runs = [await tasks.enqueue(LONG) for _ in range(4)]
    async with working(concurrency=4, grace_seconds=0.1) as stop:
        await await_until(lambda: slow_calls.now == 4)
        stop.set()
    assert [(run.released, run.held) for run in runs] == [(1, False)] * 4


async def test_a_run_that_comes_again_ends_its_earlier_attempt(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(concurrency=2, grace_seconds=0.1):
        run = await tasks.enqueue(LONG)
        await await_until(lambda: run.held)
        await tasks.expire(run)
        await await_until(lambda: run.attempt == 2)
        # One of two slots is the second attempt's: this gets the one that the first has left.
        await tasks.ended(await tasks.enqueue({"uses": "echo.test"}))
        assert run.held
    assert (run.released, run.outcome, tasks.refused) == (1, None, 0)

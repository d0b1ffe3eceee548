"""How much a worker takes on at one time, and of what."""

import logging

import pytest

from services.worker.held import MAX_UNREPORTED, LeaseTiming
from tests.support.fake_tasks import FakeTasks
from tests.support.mcp_servers import slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

ECHO = {"uses": "echo.test", "save_as": "x"}
SLOW = {"uses": "mis.slow", "with": {"seconds": 0.1}}
ENDLESS = {"uses": "mis.slow", "with": {"seconds": 60}}


async def test_never_more_runs_at_work_than_slots(tasks: FakeTasks, working: Working, http_server: str) -> None:
    slow_calls.most = 0
    async with working(concurrency=2):
        runs = [await tasks.enqueue(SLOW) for _ in range(6)]
        await await_until(lambda: all(run.outcome for run in runs))
    assert slow_calls.most == 2


async def test_never_more_calls_to_one_tool_server_than_agreed(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    slow_calls.most = 0
    async with working(concurrency=6, tool_calls=3):
        runs = [await tasks.enqueue(SLOW) for _ in range(6)]
        await await_until(lambda: all(run.held for run in runs))
        # A run that waits for its turn does not keep others from other tools.
        await await_until(lambda: slow_calls.now == 3)
        for run in runs:
            await tasks.ended(run)
    assert slow_calls.most == 3


async def test_waiting_for_a_turn_is_not_waiting_for_an_answer(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(tool_calls=1):
        runs = [await tasks.enqueue({**SLOW, "timeout_seconds": 0.25}) for _ in range(4)]
        for run in runs:
            await tasks.ended(run)
    assert [run.ending for run in runs] == ["succeeded"] * 4


async def test_a_run_that_is_done_makes_room_before_it_is_reported(tasks: FakeTasks, working: Working) -> None:
    tasks.paused.clear()
    async with working(concurrency=1):
        runs = [await tasks.enqueue(ECHO) for _ in range(3)]
        await await_until(lambda: all(run.held for run in runs))
        tasks.paused.set()
        for run in runs:
            await tasks.ended(run)


async def test_what_is_done_and_cannot_be_reported_is_bounded(tasks: FakeTasks, working: Working) -> None:
    tasks.paused.clear()
    async with working(concurrency=10):
        runs = [await tasks.enqueue(ECHO) for _ in range(MAX_UNREPORTED + 50)]
        await await_until(lambda: sum(run.held for run in runs) >= MAX_UNREPORTED)
        with pytest.raises(TimeoutError):
            await await_until(lambda: sum(run.held for run in runs) > MAX_UNREPORTED + 10, timeout=0.3)
        tasks.paused.set()
        for run in runs:
            await tasks.ended(run)


async def test_leases_of_different_ages_are_given_up_each_in_its_time(
    tasks: FakeTasks, working: Working, http_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    def lost() -> list[str]:
        return [getattr(record, "run_id", "") for record in caplog.records if record.message == "lease_lost"]

    caplog.set_level(logging.WARNING, "services.worker")
    tasks.fail("RenewRuns", 10_000)
    async with working(concurrency=2, timing=LeaseTiming(renew_every=0.1, give_up_after=0.4)):
        first = await tasks.enqueue(ENDLESS)
        await await_until(lambda: first.held)
        second = await tasks.enqueue(ENDLESS)
        await await_until(lambda: lost() == [first.id, second.id])
    assert (first.outcome, second.outcome) == (None, None)


async def test_a_worker_does_the_runs_of_its_role_only(tasks: FakeTasks, working: Working) -> None:
    anybodys, reviewers = await tasks.enqueue(ECHO), await tasks.enqueue(ECHO, role="reviewer")
    async with working(role="reviewer"):
        await tasks.ended(reviewers)
        assert not anybodys.attempt
    await await_until(lambda: not tasks.polls)
    reviewers = await tasks.enqueue(ECHO, role="reviewer")
    async with working():
        await tasks.ended(anybodys)
    assert not reviewers.attempt


async def test_runs_of_one_pipeline_have_nothing_else_in_common(tasks: FakeTasks, working: Working) -> None:
    steps = [
        {"uses": "echo.test", "with": {"run": "${run.id}", "all": "${params.list}"}, "save_as": "mine"},
        {"uses": "echo.test", "with": {"seen": "${steps.mine.run}"}, "save_as": "seen"},
    ]
    async with working():
        runs = [await tasks.enqueue(*steps, params={"list": [1, {"a": 2}]}) for _ in range(5)]
        for run in runs:
            await tasks.ended(run)
    assert [run.output for run in runs] == [
        {"mine": {"run": run.id, "all": [1, {"a": 2}]}, "seen": {"seen": run.id}} for run in runs
    ]

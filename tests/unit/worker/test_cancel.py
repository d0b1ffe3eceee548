"""Runs that somebody calls off while a worker does them."""

from services.worker.held import LeaseTiming
from tests.support.fake_tasks import FakeTasks
from tests.support.mcp_servers import slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

ECHO = {"uses": "echo.test"}
SLOW = {"uses": "mis.slow", "with": {"seconds": 0.5}, "save_as": "slowly"}
OFTEN = LeaseTiming(renew_every=0.02)


async def test_a_run_stops_before_the_step_after_the_one_that_was_running(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(timing=OFTEN):
        run = await tasks.enqueue(SLOW, ECHO)
        await await_until(lambda: slow_calls.now)
        run.cancel_requested = True
        await tasks.ended(run)
    assert (run.ending, run.output) == ("canceled", {"slowly": {"result": "done"}})
    assert [[step.id for step in report.steps] for report in tasks.reports] == [["step_1"]]


async def test_the_answer_to_a_report_stops_a_run_too(tasks: FakeTasks, working: Working) -> None:
    tasks.paused.clear()
    async with working():
        run = await tasks.enqueue(ECHO, ECHO, ECHO)
        await await_until(lambda: run.held)
        run.cancel_requested = True
        tasks.paused.set()
        await tasks.ended(run)
    assert (run.ending, [step.id for step in run.steps]) == ("canceled", ["step_1"])


async def test_a_run_whose_last_step_is_under_way_still_succeeds(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(timing=OFTEN):
        run = await tasks.enqueue(SLOW)
        await await_until(lambda: slow_calls.now)
        run.cancel_requested = True
        await tasks.ended(run)
    assert (run.ending, run.output) == ("succeeded", {"slowly": {"result": "done"}})


async def test_a_step_that_fails_meanwhile_fails_the_run(tasks: FakeTasks, working: Working, http_server: str) -> None:
    async with working(timing=OFTEN):
        run = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 60}, "timeout_seconds": 0.5}, ECHO)
        await await_until(lambda: slow_calls.now)
        run.cancel_requested = True
        await tasks.ended(run)
    assert (run.ending, run.error.step_id) == ("failed", "step_1")


async def test_other_runs_go_on(tasks: FakeTasks, working: Working, http_server: str) -> None:
    async with working(timing=OFTEN):
        called_off, other = await tasks.enqueue(SLOW, ECHO), await tasks.enqueue(SLOW, ECHO)
        await await_until(lambda: slow_calls.now == 2)
        called_off.cancel_requested = True
        await tasks.ended(called_off)
        await tasks.ended(other)
    assert (called_off.ending, other.ending) == ("canceled", "succeeded")

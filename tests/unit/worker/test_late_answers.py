"""Answers to calls for work that are long on their way."""

import asyncio
import logging

import pytest

from services.worker.held import LeaseTiming
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Tasks, Working

ECHO = {"uses": "echo.test"}


async def test_what_comes_after_the_stop_is_given_back_undone(tasks: Tasks, working: Working) -> None:
    tasks.answers_arrive.clear()
    async with working() as stop:
        runs = [await tasks.enqueue(ECHO) for _ in range(3)]
        await await_until(lambda: runs[0].held)
        stop.set()
        asyncio.get_running_loop().call_later(0.2, tasks.answers_arrive.set)
    leased = [run for run in runs if run.attempt]
    assert leased
    assert [(run.held, run.released, run.outcome) for run in leased] == [(False, 1, None)] * len(leased)


async def test_a_worker_that_stops_goes_on_with_what_it_has_while_it_waits_for_the_last_answer(
    tasks: Tasks, working: Working, http_server: str
) -> None:
    async with working() as stop:
        # The session is opened before, for that may take longer than a last answer is waited for.
        await tasks.ended(await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 0}}))
        begun = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 0.3}})
        await await_until(lambda: begun.held)
        tasks.answers_arrive.clear()
        late = await tasks.enqueue(ECHO)
        await await_until(lambda: late.held)
        stop.set()
        await tasks.ended(begun)
        assert late.held
        tasks.answers_arrive.set()
    assert (begun.ending, late.held, late.released) == ("succeeded", False, 1)


async def test_a_lease_counts_from_when_it_was_asked_for(
    tasks: Tasks, working: Working, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "services.worker")
    loop = asyncio.get_running_loop()
    tasks.answers_arrive.clear()
    async with working(timing=LeaseTiming(renew_every=0.1, give_up_after=0.2)):
        run = await tasks.enqueue(ECHO)
        await await_until(lambda: run.held)
        given_up_at = loop.time() + 0.2
        await await_until(lambda: loop.time() > given_up_at)
        tasks.answers_arrive.set()
        await await_until(lambda: "lease_lost" in caplog.messages)
        assert (tasks.reports, run.held) == ([], True), "it was begun, or given back, although it may be another's"

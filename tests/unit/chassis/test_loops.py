"""Loops that never end by themselves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.chassis import loops
from services.chassis.errors import Unavailable
from tests.support.waiting import await_until


@asynccontextmanager
async def _running(step: Callable[[], Awaitable[float]], timeout: float = 5) -> AsyncIterator[asyncio.Task[None]]:
    loop = asyncio.create_task(loops.forever("kiosk", step, timeout=timeout))
    try:
        yield loop
    finally:
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


class Steps:
    """Steps that fail as long as they are told to, and count."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.done = 0
        self.times: list[float] = []

    async def __call__(self) -> float:
        self.times.append(asyncio.get_running_loop().time())
        if self.failure is not None:
            raise self.failure
        self.done += 1
        return 0.0


async def test_steps_follow_each_other() -> None:
    steps = Steps()
    async with _running(steps):
        await await_until(lambda: steps.done >= 3)


async def test_a_failure_is_logged_and_the_loop_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(Unavailable("no paper today"))
    async with _running(steps):
        await await_until(lambda: caplog.records)
        steps.failure = None
        await await_until(lambda: steps.done)
    record = caplog.records[0]
    assert (record.message, record.levelno) == ("loop_failed", logging.WARNING)
    assert vars(record)["loop"] == "kiosk"
    assert vars(record)["error"] == "Unavailable: no paper today"
    assert record.exc_info is None


async def test_a_fault_of_ours_is_logged_with_where_it_happened(caplog: pytest.LogCaptureFixture) -> None:
    async with _running(Steps(KeyError("paper"))):
        await await_until(lambda: caplog.records)
    assert caplog.records[0].exc_info


async def test_the_rest_after_each_failure_grows() -> None:
    steps = Steps(Unavailable("no paper today"))
    async with _running(steps):
        await await_until(lambda: len(steps.times) >= 4)
    first, second, third = (after - before for before, after in zip(steps.times, steps.times[1:4], strict=False))
    assert first >= 0.05
    assert second >= 0.1
    assert third >= 0.2


async def test_a_step_that_hangs_is_cut_short(caplog: pytest.LogCaptureFixture) -> None:
    cut = asyncio.Event()

    async def hang() -> float:
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        raise AssertionError

    async with _running(hang, timeout=0.01):
        await asyncio.wait_for(cut.wait(), 5)
        await await_until(lambda: caplog.records)
    assert "TimeoutError" in vars(caplog.records[0])["error"]


async def test_cancelling_the_loop_ends_it_in_the_middle_of_a_step() -> None:
    started = asyncio.Event()

    async def long_step() -> float:
        started.set()
        await asyncio.Event().wait()
        return 0.0

    async with _running(long_step) as loop:
        await asyncio.wait_for(started.wait(), 5)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

"""Waiting for something to become true, no longer than it takes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

_POLL_SECONDS = 0.01


async def await_until(
    condition: Callable[[], Any | Awaitable[Any]], timeout: float = 5.0, every: float = _POLL_SECONDS
) -> Any:
    """Calls `condition`, which may be async, until it answers something true, and answers that.

    It is called `every` so many seconds: seldom where asking disturbs. Raises TimeoutError after `timeout` seconds,
    naming the condition.
    """
    give_up = time.monotonic() + timeout
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        _refuse_to_wait(give_up, timeout, condition)
        await asyncio.sleep(every)


def wait_until(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    """The same where there is no event loop."""
    give_up = time.monotonic() + timeout
    while not (answer := condition()):
        _refuse_to_wait(give_up, timeout, condition)
        time.sleep(_POLL_SECONDS)
    return answer


def _refuse_to_wait(give_up: float, timeout: float, condition: Callable[[], Any]) -> None:
    if time.monotonic() >= give_up:
        raise TimeoutError(f"not true after {timeout:g} s: {getattr(condition, '__qualname__', condition)}")

"""Waiting for something to become true, no longer than it takes."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

# Who waits long asks more and more seldom: what is asked is a whole Baton as a rule, and others want the processors.
_SHORTEST_SECONDS, _LONGEST_SECONDS, _SHARE = 0.01, 0.25, 0.1
# How long a machine may stand still before that counts as a fault. A test that is about a bound says which.
_PATIENCE_SECONDS = 60.0


async def await_until(
    condition: Callable[[], Any | Awaitable[Any]], timeout: float = _PATIENCE_SECONDS, every: float = _SHORTEST_SECONDS
) -> Any:
    """Calls `condition`, which may be async, until it answers something true, and answers that.

    It is called `every` so many seconds at most: seldom where asking disturbs. Raises TimeoutError after `timeout`
    seconds, naming the condition.
    """
    began = time.monotonic()
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        await asyncio.sleep(max(every, _pause(began, timeout, condition)))


def wait_until(condition: Callable[[], Any], timeout: float = _PATIENCE_SECONDS) -> Any:
    """The same where there is no event loop."""
    began = time.monotonic()
    while not (answer := condition()):
        time.sleep(_pause(began, timeout, condition))
    return answer


def _pause(began: float, timeout: float, condition: Callable[[], Any]) -> float:
    """How long to wait before asking again."""
    waited = time.monotonic() - began
    if waited >= timeout:
        raise TimeoutError(f"not true after {timeout:g} s: {getattr(condition, '__qualname__', condition)}")
    return min(max(waited * _SHARE, _SHORTEST_SECONDS), _LONGEST_SECONDS)

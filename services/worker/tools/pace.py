"""How fast a tool server is listened to, so that one that talks without end costs little and keeps nobody waiting."""

import asyncio
import time
from collections.abc import Callable

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Bytes of one message of a server; more than any output may have, which is told in words of its own."""

# What nobody asked for: logs, progress, garbage.
_MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND = 1000, 100
_BYTES_AT_ONCE, _BYTES_PER_SECOND = 2 * MAX_MESSAGE_BYTES, 2 * 1024 * 1024


class Allowance:
    """So much at once, and so much a second from then on."""

    def __init__(self, at_once: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._clock = clock
        self._left = at_once
        self._counted_at = clock()

    def spend(self, amount: float) -> float:
        """Takes off what has come; answers for how many seconds to take no more."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._counted_at) * self._per_second) - amount
        self._counted_at = now
        return max(0.0, -self._left / self._per_second)

    def grant(self, amount: float) -> None:
        """Adds what was asked for."""
        self._left = min(self._at_once, self._left + amount)


class Pace:
    """How fast the messages of one server are taken. What was asked for does not count."""

    def __init__(self) -> None:
        self._messages = Allowance(_MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND)
        self._bytes = Allowance(_BYTES_AT_ONCE, _BYTES_PER_SECOND)

    async def take(self, size: int = 0) -> None:
        """Waits before a message of `size` bytes is looked at, if too much has come."""
        seconds = max(self._messages.spend(1), self._bytes.spend(size))
        if seconds:
            await asyncio.sleep(seconds)

    def expect_answer(self) -> None:
        """A request was sent: one message more may come."""
        self._messages.grant(1)
        self._bytes.grant(MAX_MESSAGE_BYTES)

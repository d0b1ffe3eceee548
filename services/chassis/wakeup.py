"""A hint that there may be news of something: those who wait for it look again at once."""

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

Tell = Callable[[frozenset[str] | None], Any]
"""Passes a hint on to other processes: what there may be news of, or None for everything."""


class Wakeup:
    """Wakes those who wait. Taking a ticket before looking makes sure that no hint is lost in between.

    A hint costs little and promises nothing: who waits looks by itself, too, now and then.
    """

    def __init__(self, tell: Tell | None = None) -> None:
        self._tell = tell
        # The next hint of each thing, for as long as somebody has a ticket for it.
        self._next: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def notify(self, *topics: str) -> None:
        """Wakes everybody who holds a ticket of before now for one of the topics, here and in other processes.

        Without a topic it wakes everybody.
        """
        self.wake(*topics)
        if self._tell is not None:
            self._tell(frozenset(topics) or None)

    def wake(self, *topics: str) -> None:
        """Like `notify`, in this process only."""
        for topic in topics or list(self._next):
            event = self._next.pop(topic, None)
            if event is not None:
                event.set()

    def ticket(self, topic: str = "") -> asyncio.Event:
        """What to wait with for the next hint."""
        event = self._next.get(topic)
        if event is None:
            event = self._next[topic] = asyncio.Event()
        return event

    async def wait(self, ticket: asyncio.Event, seconds: float) -> None:
        """Waits for a hint that came after the ticket was taken, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await ticket.wait()
        except TimeoutError:
            pass

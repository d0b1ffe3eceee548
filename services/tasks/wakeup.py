"""A hint, inside one process, that there may be work: those who wait for it look again at once."""

import asyncio


class Wakeup:
    """Wakes all who wait. Taking a ticket before looking makes sure that no hint is lost in between."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wakes everybody who holds a ticket of before now."""
        self._next.set()
        self._next = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        """What to wait with for the next hint."""
        return self._next

    async def wait(self, ticket: asyncio.Event, seconds: float) -> None:
        """Waits for a hint that came after the ticket was taken, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await ticket.wait()
        except TimeoutError:
            pass

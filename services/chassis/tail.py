"""The end of something that grows, looked at once for all who watch it."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.chassis import call, telemetry
from services.chassis.errors import ServiceError, Unavailable
from services.chassis.wakeup import Wakeup

MAX_WATCHERS = 1000
# Should a hint get lost, it is late by this.
POLL_SECONDS = 1.0
# Whoever is further behind finds its way by its own filter, along an index, instead of through all that there is.
FAR = 1000
# Who watches is mostly at the same place as all the others, or a little behind. So little is kept for them.
_REMEMBERED = 4
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Look(Generic[_T]):
    """What a look has found behind a position."""

    items: list[_T]
    """In their order."""
    reached: int
    """Nothing up to here was missed, and nothing will be added before it."""
    has_more: bool


class Tail(Generic[_T]):
    """Tells those who watch something of what is added at its end.

    Places there are numbers that grow. `end` tells the last of them, and `look` what is behind one, each with one
    question to the database, however many there are to be told; `wakeup` says when it is worth while to ask. Watchers
    wait for nothing but each other's questions. What one has not taken waits in the database, not here.
    """

    def __init__(
        self,
        end: Callable[[], Awaitable[int]],
        look: Callable[[int], Awaitable[Look[_T]]],
        wakeup: Wakeup,
        *,
        metric: str,
        poll_seconds: float | None = None,
    ) -> None:
        """`metric` is the name of how many watch; without hints `end` is asked each `poll_seconds`, or each second."""
        self._find_end, self._look, self._wakeup = end, look, wakeup
        self._poll_seconds = poll_seconds
        self._end = 0
        self._moved = Wakeup()
        self._looks: OrderedDict[int, asyncio.Task[Look[_T]]] = OrderedDict()
        self._watchers = 0
        self._following: asyncio.Task[None] | None = None
        self._stopping = False
        self._watching = telemetry.meter().create_up_down_counter(metric, description="callers who watch")

    def stop(self) -> None:
        """Ends what would otherwise go on for as long as anybody watches."""
        self._stopping = True
        self._moved.wake()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The time in which somebody watches. Raises Unavailable `TOO_MANY_WATCHERS`."""
        if self._watchers >= MAX_WATCHERS:
            raise Unavailable(
                f"{MAX_WATCHERS} watch this here already: come again later", reason="TOO_MANY_WATCHERS", retry_after=5
            )
        self._watchers += 1
        self._watching.add(1)
        if self._following is None:
            # In nobody's call: it goes on when that one ends.
            self._following = asyncio.create_task(self._follow(), context=Context())
        try:
            yield
        finally:
            self._watchers -= 1
            self._watching.add(-1)
            if not self._watchers:
                self._following.cancel()
                self._following = None

    async def told(
        self, position: int, look: Callable[[int], Awaitable[Look[_T]]], is_wanted: Callable[[_T], bool]
    ) -> AsyncIterator[_T]:
        """What is wanted of what is behind a position, for as long as the current call may last.

        `look` finds what is wanted by itself, for as long as that is far from the end.
        """
        is_far = True
        while not self._stopping and (left := call.lasting_seconds_left()) > 0:
            moved = self._moved.ticket()
            if is_far:
                found = await look(position)
                is_far = found.has_more
            elif position < self._end:
                found = await self._shared_look(position)
                is_far = self._end - found.reached > FAR
            else:
                await self._moved.wait(moved, left)
                continue
            for item in found.items:
                if is_wanted(item):
                    yield item
            position = found.reached

    async def _follow(self) -> None:
        while True:
            hint = self._wakeup.ticket()
            try:
                end = await self._find_end()
            except ServiceError as error:
                # Who watches is told nothing meanwhile, which is right.
                _log.warning("end_not_found", extra={"error": f"{type(error).__name__}: {error}"})
                end = self._end
            if end > self._end:
                self._end = end
                self._moved.wake()
            await self._wakeup.wait(hint, self._poll_seconds or POLL_SECONDS)

    async def _shared_look(self, position: int) -> Look[_T]:
        """What is behind a place before the end: a look that somebody has taken there finds what any other would."""
        look = self._looks.get(position)
        if look is None:
            look = self._looks[position] = asyncio.create_task(self._take_look(position), context=Context())
            if len(self._looks) > _REMEMBERED:
                self._looks.popitem(last=False)
        # Shielded: the first of several who wait for it may leave.
        return await asyncio.shield(look)

    async def _take_look(self, position: int) -> Look[_T]:
        try:
            return await self._look(position)
        except BaseException:
            self._looks.pop(position, None)
            raise

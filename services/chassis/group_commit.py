"""Concurrent writes of one kind as one transaction: what arrives while a commit is under way is the next one."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.chassis import call
from services.chassis.errors import Aborted, DeadlineExceeded, Unavailable

_Q = TypeVar("_Q")
_R = TypeVar("_R")
MAX_GROUP = 200
# What says nothing of any one item, and would be the same for each of them alone.
_ABOUT_ALL = (Unavailable, DeadlineExceeded, Aborted)


@dataclass
class _Waiting(Generic[_Q, _R]):
    item: _Q
    done: "asyncio.Future[_R]"
    # A group continues the trace of the first of its items.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class GroupCommit(Generic[_Q, _R]):
    """Hands `write` up to `at_most` items at once. An item alone is written at once: nobody waits for company.

    `write` answers for each item a result, or an exception, which that item's caller alone gets. When it raises, the
    items are written one by one, so that a bad one spoils nothing but itself; but when it is the database that is away,
    or takes too long, all of them get that.
    """

    def __init__(
        self, write: Callable[[Sequence[_Q]], Awaitable[Sequence[_R | Exception]]], at_most: int = MAX_GROUP
    ) -> None:
        self._write = write
        self._at_most = at_most
        self._waiting: list[_Waiting[_Q, _R]] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, item: _Q) -> _R:
        """Returns once the item is committed. Who is cancelled before its group begins takes it back."""
        waiting: _Waiting[_Q, _R] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting(), context=contextvars.Context())
        return await waiting.done

    async def _write_waiting(self) -> None:
        while group := self._next_group():
            await self._write_group(group)

    def _next_group(self) -> list[_Waiting[_Q, _R]]:
        left = [waiting for waiting in self._waiting if not waiting.done.done()]
        group, self._waiting = left[: self._at_most], left[self._at_most :]
        return group

    async def _write_group(self, group: list[_Waiting[_Q, _R]]) -> None:
        context = group[0].context
        # Its deadline is not that of the others.
        context.run(call.current.set, None)
        try:
            items = [waiting.item for waiting in group]
            results = await asyncio.create_task(_awaited(self._write(items)), context=context)
        except _ABOUT_ALL as error:
            # It may even have been committed: nobody's item is written twice without his asking.
            for waiting in group:
                _settle(waiting, error)
            return
        except Exception as error:
            if len(group) == 1:
                _settle(group[0], error)
                return
            for waiting in group:
                if not waiting.done.done():
                    await self._write_group([waiting])
            return
        for waiting, result in zip(group, results, strict=True):
            _settle(waiting, result)


async def _awaited(result: Awaitable[_R]) -> _R:
    return await result


def _settle(waiting: _Waiting[_Q, _R], result: _R | Exception) -> None:
    if waiting.done.done():
        return
    if isinstance(result, Exception):
        waiting.done.set_exception(result)
    else:
        waiting.done.set_result(result)

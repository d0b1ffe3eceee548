"""Generators that run on threads for readers that run on the event loop."""

import asyncio
import concurrent.futures
import contextvars
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

_T = TypeVar("_T")


async def iterate(items: Generator[_T, None, None], threads: ThreadPoolExecutor) -> AsyncGenerator[_T, None]:
    """Each item of `items`, made on one of `threads` when it is asked for, in the reader's context.

    `items` is closed at the end, also when the reader stops early or is cancelled while an item is being made.
    """
    run = contextvars.copy_context().run
    taking: Future[list[_T]] | None = None
    try:
        while True:
            taking = threads.submit(run, _next, items)
            taken = await asyncio.wrap_future(taking)
            if not taken:
                return
            yield taken[0]
    finally:
        await asyncio.shield(asyncio.wrap_future(threads.submit(_close, items, taking, run)))


def _next(items: Generator[_T, None, None]) -> list[_T]:
    # A list, since a StopIteration cannot be the outcome of a future.
    return list(islice(items, 1))


def _close(items: Generator[Any, None, None], taking: Future[Any] | None, run: Callable[..., Any]) -> None:
    # A reader that is cancelled does not stop the thread that makes its next item.
    if taking is not None:
        concurrent.futures.wait([taking])
    run(items.close)

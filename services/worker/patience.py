"""Waiting for the tasks service while it is away: what was done must not be done again only because of that."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.chassis.errors import Aborted, DeadlineExceeded, Unauthenticated, Unavailable

ANSWER_SECONDS = 10.0
"""How long one call may take."""
WAITED_OUT = (Unavailable, DeadlineExceeded, Aborted, Unauthenticated)
"""These pass, or they also keep the lease from being renewed and so end with it."""
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


async def until_answered(ask: Callable[[], Awaitable[_T]]) -> _T:
    """The answer of a call that may be repeated, for as long as somebody waits for it: a lost lease cancels it.

    Raises ServiceError for what waiting does not help against.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await ask()
        except WAITED_OUT as error:
            _log.warning("tasks_service_away", extra={"reason": error.reason})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

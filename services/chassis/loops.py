"""Work that a process does again and again beside its calls."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from services.chassis import telemetry
from services.chassis.errors import ServiceError

_log = logging.getLogger(__name__)
_MAX_BACKOFF_SECONDS = 5.0


async def forever(name: str, step: Callable[[], Awaitable[float]], *, timeout: float) -> None:
    """Runs `step` until cancelled. Each step says how many seconds to rest before the next.

    A step that fails, or takes longer than `timeout` seconds, is logged, counted in `baton.loop.failures` and
    tried again after 0.1 s, doubling up to 5 s, with jitter.
    """
    failures = telemetry.meter().create_counter("baton.loop.failures", description="failed steps of background loops")
    backoff = 0.1
    while True:
        try:
            async with asyncio.timeout(timeout):
                rest = await step()
            backoff = 0.1
        except Exception as error:
            failures.add(1, {"loop": name})
            expected = isinstance(error, ServiceError | TimeoutError)
            _log.warning(
                "loop_failed",
                extra={"loop": name, "error": f"{type(error).__name__}: {error}"},
                exc_info=None if expected else error,
            )
            rest = backoff * random.uniform(0.5, 1.0)
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
        await asyncio.sleep(rest)

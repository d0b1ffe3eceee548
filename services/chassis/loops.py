"""Work that a process does again and again beside its calls, and how long ago each of it was last done."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from opentelemetry.metrics import CallbackOptions, Observation

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import ServiceError

_log = logging.getLogger(__name__)
_MAX_BACKOFF_SECONDS = 5.0


@dataclass
class Pulse:
    """When a loop last got through a step, on the monotonic clock, and until when it has to get through the next."""

    at: float
    until: float

    @property
    def age(self) -> float:
        """How many seconds ago it was."""
        return time.monotonic() - self.at

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.until


# Of the process, as its metrics are.
_pulses: dict[str, Pulse] = {}


def pulses() -> dict[str, Pulse]:
    """Of every loop of this process, by name."""
    return dict(_pulses)


async def forever(name: str, step: Callable[[], Awaitable[float]], *, timeout: float) -> None:
    """Runs `step` until cancelled. Each step says how many seconds to rest before the next.

    A step that fails, or takes longer than `timeout` seconds, is logged, counted in `baton.loop.failures` and
    tried again after 0.1 s, doubling up to 5 s, with jitter. How long ago a step succeeded is in `pulses`, and the
    gauge `baton.loop.age`.
    """
    telemetry.meter().create_observable_gauge(
        metric_names.LOOP_AGE, [_ages], unit="s", description="since a background loop last got through a step"
    )
    failures = telemetry.meter().create_counter(
        metric_names.LOOP_FAILURES, description="failed steps of background loops"
    )
    backoff, now = 0.1, time.monotonic()
    # It has time for its first step.
    _pulses[name] = Pulse(now, now + timeout + _MAX_BACKOFF_SECONDS)
    while True:
        try:
            async with asyncio.timeout(timeout):
                rest = await step()
            backoff, now = 0.1, time.monotonic()
            _pulses[name] = Pulse(now, now + rest + timeout + _MAX_BACKOFF_SECONDS)
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


def _ages(options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(pulse.age, {"loop": name}) for name, pulse in pulses().items()]

"""How much the gateway does at one time."""

from collections.abc import Iterator
from contextlib import contextmanager

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import Unavailable

_AGAIN_SECONDS = 1


class Capacity:
    """So many requests at one time, those whose answer goes on and on among them; further ones are turned away.

    They cost nearly nothing then, so that those in progress are finished in good time however many come.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy = 0
        self._in_progress = telemetry.meter().create_up_down_counter(
            metric_names.REQUESTS_IN_PROGRESS, description="requests that are being answered"
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Unavailable `OVERLOADED` when there is none."""
        if self._busy >= self._most:
            raise Unavailable(
                f"{self._most} requests are in progress here already: come again in a moment",
                reason="OVERLOADED",
                retry_after=_AGAIN_SECONDS,
            )
        self._busy += 1
        self._in_progress.add(1)
        try:
            yield
        finally:
            self._busy -= 1
            self._in_progress.add(-1)

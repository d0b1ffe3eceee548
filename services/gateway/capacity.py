"""How much the gateway does at one time."""

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Observation
from starlette.requests import Request

from services import metric_names
from services.chassis import telemetry
from services.chassis.errors import Unavailable

_AGAIN_SECONDS = 1
_HAS_PLACE = "baton.has_place"


class Capacity:
    """So many requests at one time, those whose answer goes on and on among them; further ones are turned away.

    They cost nearly nothing then, so that those in progress are finished in good time however many come.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy = 0
        # Looked at when somebody asks for metrics: to be told of each coming and going costs as much as an answer.
        telemetry.meter().create_observable_up_down_counter(
            metric_names.REQUESTS_IN_PROGRESS, [self._observe], description="requests that are being answered"
        )

    def take_place(self, request: Request) -> None:
        """For one request, until `leave_place`. Raises Unavailable `OVERLOADED` when there is none."""
        if self._busy >= self._most:
            raise Unavailable(
                f"{self._most} requests are in progress here already: come again in a moment",
                reason="OVERLOADED",
                retry_after=_AGAIN_SECONDS,
            )
        self._busy += 1
        request.scope[_HAS_PLACE] = True

    def leave_place(self, request: Request) -> None:
        """Gives back the place of a request, if it has one."""
        if request.scope.pop(_HAS_PLACE, False):
            self._busy -= 1

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._busy)]

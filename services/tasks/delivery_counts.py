"""What events did to tasks, as metrics."""

from collections import Counter
from collections.abc import Iterable

from services import metric_names
from services.chassis import telemetry
from services.tasks.models.event import Delivery


class DeliveryCounts:
    """How many tasks were matched with events, by outcome; one for a process."""

    def __init__(self) -> None:
        self._deliveries = telemetry.meter().create_counter(
            metric_names.EVENT_DELIVERIES, description="tasks that were matched with an event, by outcome"
        )

    def add(self, deliveries: Iterable[Delivery]) -> None:
        for outcome, count in Counter(delivery.outcome for delivery in deliveries).items():
            self._deliveries.add(count, {"outcome": outcome.value})

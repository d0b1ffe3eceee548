"""The loop that matches events with tasks, where that is not done by whoever published them."""

from services import metric_names
from services.chassis import telemetry
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.delivery_counts import DeliveryCounts
from services.tasks.operations.dispatch import Dispatched, dispatch_pending
from services.tasks.spans import new_linked_trace

# What other replicas have published, and what no hint tells of, is found by looking.
_POLL_SECONDS = 0.25


class Dispatcher:
    """Matches what Baton itself has published, and what is for more tasks than one transaction has room for.

    Every replica has one: whoever is first locks an event, and the others pass it over.
    """

    def __init__(self, database: Database, wakeup: Wakeup, work_wakeup: Wakeup, counts: DeliveryCounts) -> None:
        self._database = database
        self._wakeup = wakeup
        self._work_wakeup = work_wakeup
        self._counts = counts
        self._lag = telemetry.meter().create_histogram(
            metric_names.EVENT_LAG,
            unit="s",
            description="from when an event was published until it was matched with all tasks",
        )

    async def step(self) -> float:
        """One round; then it waits for a hint, or a quarter of a second."""
        woken = self._wakeup.ticket()
        done = await self._database.transact(
            lambda connection, clock: dispatch_pending(connection, new_linked_trace, clock)
        )
        self._tell(done)
        if done.runs:
            self._work_wakeup.notify(*{run.role for run in done.runs})
        if not done.more:
            await self._wakeup.wait(woken, _POLL_SECONDS)
        return 0.0

    def _tell(self, done: Dispatched) -> None:
        self._counts.add(done.deliveries)
        for event in done.events:
            if event.dispatched_at is not None:
                self._lag.record((event.dispatched_at - event.published_at).total_seconds())

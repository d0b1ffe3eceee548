"""What is measured of the queue now and then, for metrics and for the report of health."""

from datetime import timedelta

from sqlalchemy import Connection

from services import metric_names
from services.chassis import telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.health import DEGRADED, HEALTHY, Finding
from services.tasks.store import standing_work as store

_REST_SECONDS = 10.0
# A worker asks every few seconds; that it did is written every ten.
_ACTIVE_SECONDS = 30.0
_LONG_SECONDS = 300.0


class Measuring:
    """Looks at the queue and at those who work on it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        meter = telemetry.meter()
        self._depth = meter.create_gauge(
            metric_names.DUE_WORK_QUEUE_DEPTH, description=f"runs that are due and not leased, up to {store.COUNTED}"
        )
        self._oldest = meter.create_gauge(
            metric_names.QUEUE_OLDEST_DUE, unit="s", description="for how long the oldest of these is due"
        )
        self._workers = meter.create_gauge(
            metric_names.ACTIVE_WORKERS, description="workers that asked for work lately"
        )

    async def step(self) -> float:
        """Measures; ten seconds later again."""
        due, age = await self._database.read(_work)
        active, _ = await self._database.read(_workforce)
        self._depth.set(due)
        self._oldest.set(age)
        self._workers.set(active)
        return _REST_SECONDS

    async def look_at_queue(self) -> Finding:
        """Degraded while something that could be leased has waited for five minutes."""
        due, age = await self._database.read(_work)
        count = f"{due} or more" if due == store.COUNTED else str(due)
        message = f"{count} due, the oldest for {age:.1f} s" if due else "nothing is due"
        status = DEGRADED if age > _LONG_SECONDS else HEALTHY
        return Finding(message, status, {"due": str(due), "oldest_due_seconds": f"{age:.1f}"})

    async def look_at_workers(self) -> Finding:
        """Degraded while nobody asks for work."""
        active, age = await self._database.read(_workforce)
        details = {"active": str(active)}
        if age is None:
            return Finding("nobody has asked for work for an hour", DEGRADED, details)
        message = f"{active} ask for work, last {age:.1f} s ago"
        status = HEALTHY if active else DEGRADED
        return Finding(message, status, details | {"last_asked_seconds": f"{age:.1f}"})


def _work(connection: Connection, clock: Clock) -> tuple[int, float]:
    """How many runs are due, and for how many seconds the oldest."""
    now = clock.now()
    work = store.standing_work(connection, now)
    return work.due, max(0.0, (now - work.oldest_due_at).total_seconds()) if work.oldest_due_at else 0.0


def _workforce(connection: Connection, clock: Clock) -> tuple[int, float | None]:
    """How many ask for work, and how many seconds ago one did."""
    now = clock.now()
    found = store.workforce(connection, now - timedelta(seconds=_ACTIVE_SECONDS))
    return found.active, max(0.0, (now - found.last_seen_at).total_seconds()) if found.last_seen_at else None

"""The loops that every replica of the tasks service runs: the scheduler and the reaper."""

import logging
import time
from collections import Counter
from datetime import timedelta

from services import metric_names
from services.chassis import telemetry
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.operations import scheduling, work
from services.tasks.spans import new_trace
from services.tasks.store import dedupe
from services.tasks.store.worker import forget_workers

_log = logging.getLogger(__name__)
_OUTCOME = "outcome"
_SCHEDULER_REST_SECONDS = 0.5
_REAPER_REST_SECONDS = 1.0
_FORGET_REST_SECONDS = 60.0
_KEYS_REST_SECONDS = 3600.0
_KEYS_BATCH = 1000
_WORKER_REMEMBERED = timedelta(hours=1)


class Scheduler:
    """Fires what is due."""

    def __init__(self, database: Database, work_wakeup: Wakeup, clock: Clock | None = None) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        self._clock = clock or SystemClock()
        self._occurrences = telemetry.meter().create_counter(
            metric_names.OCCURRENCES, description="nominal times of schedules that were judged, by outcome"
        )
        self._lag = telemetry.meter().create_histogram(
            metric_names.SCHEDULER_LAG, unit="s", description="from when a run was due until it was queued"
        )
        self._ticks = telemetry.meter().create_counter(
            metric_names.SCHEDULER_TICKS, description="rounds of the scheduler"
        )
        self._queued = telemetry.meter().create_counter(
            metric_names.SCHEDULER_JOBS_CREATED, description="runs that the scheduler has queued"
        )

    async def step(self) -> float:
        """One round; rests until the next fire time, half a second at most, so that new tasks are seen."""
        fired = await self._database.transact(
            lambda connection, clock: scheduling.fire_due_tasks(connection, new_trace, clock)
        )
        self._tell(fired)
        if fired.runs:
            self._work_wakeup.notify()
        if fired.more:
            return 0.0
        if fired.next_fire_at is None:
            return _SCHEDULER_REST_SECONDS
        ahead = (fired.next_fire_at - self._clock.now()).total_seconds()
        return min(max(ahead, 0.01), _SCHEDULER_REST_SECONDS)

    def _tell(self, fired: scheduling.Fired) -> None:
        for task in fired.unreadable:
            _log.error("schedule_unreadable", extra={"task_id": task.task_id, "reason": task.reason})
        for outcome, count in Counter(occurrence.outcome for occurrence in fired.occurrences).items():
            self._occurrences.add(count, {_OUTCOME: outcome.value})
        self._ticks.add(1)
        self._queued.add(len(fired.runs))
        for run in fired.runs:
            self._lag.record((fired.at - run.due_at).total_seconds())


class Reaper:
    """Rescues runs whose worker is gone, and forgets workers that are, and dedupe keys that hold nothing back."""

    def __init__(self, database: Database, work_wakeup: Wakeup) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        self._expiries = telemetry.meter().create_counter(metric_names.LEASE_EXPIRIES, description="leases that ended")
        self._forgets_at = 0.0
        self._forgets_keys_at = 0.0

    async def step(self) -> float:
        """One round; a second later the next."""
        rescued = await self._database.transact(work.rescue_runs)
        if rescued.expired:
            self._expiries.add(rescued.expired)
            _log.warning(
                "leases_expired",
                extra={"requeued": rescued.requeued, "poisoned": rescued.poisoned, "canceled": rescued.canceled},
            )
        if rescued.roles:
            self._work_wakeup.notify(*rescued.roles)
        await self._forget_workers()
        await self._forget_keys()
        return 0.0 if rescued.expired == work.RESCUE_BATCH else _REAPER_REST_SECONDS

    async def _forget_workers(self) -> None:
        if time.monotonic() >= self._forgets_at:
            self._forgets_at = time.monotonic() + _FORGET_REST_SECONDS
            await self._database.transact(
                lambda connection, clock: forget_workers(connection, clock.now() - _WORKER_REMEMBERED)
            )

    async def _forget_keys(self) -> None:
        """Once an hour, and a batch in each round for as long as there are more."""
        if time.monotonic() >= self._forgets_keys_at:
            forgotten = await self._database.transact(
                lambda connection, clock: dedupe.forget(connection, clock.now(), _KEYS_BATCH)
            )
            if forgotten < _KEYS_BATCH:
                self._forgets_keys_at = time.monotonic() + _KEYS_REST_SECONDS

"""The loops that every replica of the tasks service runs: the scheduler and the reaper."""

import logging

from opentelemetry.trace import SpanKind

from services.chassis import telemetry
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database
from services.tasks.operations import scheduling, work
from services.tasks.wakeup import Wakeup

_log = logging.getLogger(__name__)
_TASK_ID = "baton.task.id"
_SCHEDULER_REST_SECONDS = 0.5
_REAPER_REST_SECONDS = 1.0


class Scheduler:
    """Fires what is due."""

    def __init__(self, database: Database, work_wakeup: Wakeup, clock: Clock | None = None) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        self._clock = clock or SystemClock()

    async def step(self) -> float:
        """One round; rests until the next fire time, half a second at most, so that new tasks are seen."""
        fired = await self._database.transact(
            lambda connection, clock: scheduling.fire_due_tasks(connection, _new_trace, clock)
        )
        for task in fired.unreadable:
            _log.error("schedule_unreadable", extra={"task_id": task.task_id, "reason": task.reason})
        if fired.runs:
            self._work_wakeup.notify()
        if fired.tasks == scheduling.BATCH:
            return 0.0
        if fired.next_fire_at is None:
            return _SCHEDULER_REST_SECONDS
        ahead = (fired.next_fire_at - self._clock.now()).total_seconds()
        return min(max(ahead, 0.01), _SCHEDULER_REST_SECONDS)


class Reaper:
    """Rescues runs whose worker is gone."""

    def __init__(self, database: Database, work_wakeup: Wakeup) -> None:
        self._database = database
        self._work_wakeup = work_wakeup
        self._expiries = telemetry.meter().create_counter("baton.lease.expiries", description="leases that ended")

    async def step(self) -> float:
        """One round; a second later the next."""
        rescued = await self._database.transact(work.rescue_runs)
        if expired := rescued.requeued + rescued.poisoned:
            self._expiries.add(expired)
            _log.warning("leases_expired", extra={"requeued": rescued.requeued, "poisoned": rescued.poisoned})
            self._work_wakeup.notify()
        return 0.0 if expired == work.RESCUE_BATCH else _REAPER_REST_SECONDS


def _new_trace(task_id: str) -> str:
    # Outside of any span, so that each scheduled run is the root of a trace of its own.
    with telemetry.tracer().start_as_current_span(
        "schedule.fire", context=telemetry.remote_context({}), kind=SpanKind.PRODUCER
    ) as span:
        span.set_attribute(_TASK_ID, task_id)
        return telemetry.traceparent()

"""Firing what is due. Several schedulers may run at once: each nominal time gets one outcome all the same."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.tasks.models.run import NewRun
from services.tasks.models.schedule import MISFIRE_WINDOW, ScheduleFault, due_times, parse_schedule
from services.tasks.models.task import Task
from services.tasks.operations.task import new_run
from services.tasks.store import queue as queue_store
from services.tasks.store import task as task_store

BATCH = 200
_MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class Unreadable:
    """A task whose stored schedule means nothing any more, such as one in a timezone that was abolished."""

    task_id: str
    reason: str


@dataclass(frozen=True)
class Fired:
    """What one round of the scheduler did."""

    tasks: int
    runs: int
    unreadable: list[Unreadable]
    next_fire_at: datetime | None
    """When there is something to do again."""


def fire_due_tasks(connection: Connection, new_trace: Callable[[str], str], clock: Clock) -> Fired:
    """Judges every nominal time that has passed, for up to BATCH tasks, and queues the runs.

    The newest nominal time of a task runs when it is at most the misfire window old; older ones were missed. A task
    whose schedule cannot be read misses its time and fires no more. `new_trace` begins a trace for a task's run and
    answers its traceparent.
    """
    now = clock.now()
    runs: list[NewRun] = []
    outcomes: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    due = task_store.lock_due_tasks(connection, now=now, limit=BATCH)
    for task in due:
        assert task.next_fire_at is not None
        times = _times(task, task.next_fire_at, now)
        following = None if isinstance(times, Unreadable) else times.following
        if not task_store.set_next_fire_time(connection, task=task, next_fire_at=following):
            continue
        if isinstance(times, Unreadable):
            unreadable.append(times)
            outcomes.append(_missed(task, task.next_fire_at, times.reason, now))
            continue
        *missed, newest = times.due
        outcomes += [_missed(task, nominal, "a later time was due as well", now) for nominal in missed]
        if now - newest > MISFIRE_WINDOW:
            outcomes.append(_missed(task, newest, f"noticed more than {MISFIRE_WINDOW} late", now))
            continue
        run = new_run(task, due_at=newest, traceparent=new_trace(task.id))
        runs.append(run)
        outcomes.append(_outcome(task, newest, "ran", "", run.id, now))
    queue_store.add_runs(connection, runs, now)
    task_store.add_occurrences(connection, outcomes)
    return Fired(len(due), len(runs), unreadable, task_store.next_fire_time(connection))


@dataclass(frozen=True)
class _Times:
    due: list[datetime]
    following: datetime | None


def _times(task: Task, since: datetime, now: datetime) -> _Times | Unreadable:
    """The nominal times of a task that have come, and the one after them."""
    try:
        schedule = parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone)
        return _Times(due_times(schedule, since, now), schedule.after(now))
    except Exception as error:
        # Nothing but arithmetic happens here. Whatever it stumbles over in one task must not stop all the others.
        reason = str(error) if isinstance(error, ScheduleFault) else f"{type(error).__name__}: {error}"
        return Unreadable(task.id, f"the schedule cannot be read: {reason}"[:_MAX_REASON_LENGTH])


def _missed(task: Task, nominal: datetime, reason: str, now: datetime) -> dict[str, Any]:
    return _outcome(task, nominal, "missed", reason, None, now)


def _outcome(
    task: Task, nominal: datetime, outcome: str, reason: str, run_id: str | None, now: datetime
) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "scheduled_for": nominal,
        "outcome": outcome,
        "reason": reason,
        "run_id": run_id,
        "created_at": now,
    }

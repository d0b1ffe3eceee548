"""What became of a task's times, and which come next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.schedule import FireTime, ScheduleFault, fire_times, parse_schedule
from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.operations.task import get_task
from services.tasks.store import task as store

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Times:
    """The times of a task."""

    past: list[Occurrence]
    next: list[FireTime]


def list_occurrences(
    connection: Connection,
    task_id: str,
    *,
    limit: int,
    before: datetime | None,
    outcomes: Sequence[Outcome],
    upcoming: int,
) -> Times:
    """Up to `limit` judged times before `before`, newest first, and up to `upcoming` to come. Raises TaskNotFound."""
    task = get_task(connection, task_id)
    past = store.list_occurrences(connection, task_id, limit=limit, before=before, outcomes=outcomes)
    return Times(past, _upcoming(task, upcoming))


def _upcoming(task: Task, count: int) -> list[FireTime]:
    """When an active task fires next; a time that was snoozed counts when it fires."""
    fire_at, snoozed = task.next_fire_at, task.next_fire_at != task.next_scheduled_for
    if task.status is not TaskStatus.ACTIVE or fire_at is None:
        return []
    try:
        schedule = parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
        times = [] if not snoozed else _alone(task, fire_at)
        after = fire_at if snoozed else fire_at - _MICROSECOND
        return [*times, *fire_times(schedule, task.timezone, after, count)][:count]
    except ScheduleFault:
        # Its zone may be abolished meanwhile; the scheduler says so once the time comes.
        return []


def _alone(task: Task, instant: datetime) -> list[FireTime]:
    """An instant as people read it in the task's zone."""
    once = parse_schedule(ScheduleKind.ONCE, instant.isoformat(), task.timezone, task.schedule_anchor)
    return fire_times(once, task.timezone, instant - _MICROSECOND, 1)

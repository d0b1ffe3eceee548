"""Times that came, or would come, and do not fire: their tasks were changed."""

from datetime import datetime

from sqlalchemy import Connection

from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.schedule import ScheduleFault, due_times, parse_schedule
from services.tasks.models.task import Task
from services.tasks.store import occurrence as store


def drop_pending(connection: Connection, task: Task, outcome: Outcome, reason: str, now: datetime) -> None:
    """Gives an outcome to the next time of a locked task, and to those after it that have come: none will fire."""
    nominal = task.next_scheduled_for
    if nominal is None:
        return
    latest = _latest_time(task, nominal, now)
    through = latest if latest > nominal else None
    store.add_occurrences(connection, [Occurrence(task.id, nominal, through, outcome, reason, None, now)])


def _latest_time(task: Task, nominal: datetime, now: datetime) -> datetime:
    if now <= nominal:
        return nominal
    try:
        schedule = parse_schedule(task.schedule_kind, task.schedule_expr, task.timezone, task.schedule_anchor)
    except ScheduleFault:
        # Its zone may be abolished meanwhile: nobody knows its times any more.
        return nominal
    due = due_times(schedule, nominal, now)
    return due.times[-1] if due.times else due.passed[-1].last

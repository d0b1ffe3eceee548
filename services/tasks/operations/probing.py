"""Whether a task is probed, by what becomes of it."""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.tasks.models.condition import Condition
from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.store import condition as store


def follow_task(connection: Connection, before: Task | None, after: Task, now: datetime) -> None:
    """Begins, stops or begins anew the probing of a locked task that was created or changed.

    Pausing keeps what the condition was; a change of what is asked forgets it.
    """
    is_probed, was_probed = _waits(after), before is not None and _waits(before)
    next_probe_at = now if is_probed and after.status is TaskStatus.ACTIVE else None
    if is_probed and (before is None or not was_probed or _question(before) != _question(after)):
        store.begin(connection, after.id, next_probe_at)
    elif before is not None and (is_probed or was_probed):
        if is_probed != was_probed or before.status is not after.status:
            store.restart(connection, after.id, next_probe_at)
        elif next_probe_at and before.condition != after.condition:
            store.hasten(connection, after.id, now + Condition.of(after).every)


def _waits(task: Task) -> bool:
    return task.schedule_kind is ScheduleKind.CONDITION


def _question(task: Task) -> tuple[Any, ...]:
    """What is asked, without how often."""
    probe = task.condition["probe"] if task.condition else None
    return task.schedule_expr, orjson.dumps([probe, task.payload.get("params")], option=orjson.OPT_SORT_KEYS)

"""Changing tasks."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.tasks.errors import TaskCanceled
from services.tasks.models.occurrence import Outcome
from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.operations.pending import drop_pending
from services.tasks.operations.probing import follow_task
from services.tasks.operations.scheduling import NewTrace
from services.tasks.operations.task import lock_own_task
from services.tasks.operations.task_audit import audit_change
from services.tasks.operations.task_faults import (
    condition_faults,
    filter_faults,
    first_fire_time,
    key_faults,
    misfire_faults,
    payload_faults,
)
from services.tasks.operations.task_status import MOVES
from services.tasks.store import task as task_store

_SCHEDULE = frozenset({"schedule_kind", "schedule_expr", "timezone"})
# What only tasks that wait for events may say depends on the kind, too.
_MISFIRE = frozenset({"schedule_kind", "misfire"})
_FILTER = frozenset({"schedule_kind", "event_filter"})
_PAYLOAD = frozenset({"schedule_kind", "payload"})
_CONDITION = frozenset({"schedule_kind", "condition", "payload"})


def update_task(
    connection: Connection,
    task_id: str,
    given: Mapping[str, Any],
    caller: Caller,
    new_trace: NewTrace,
    clock: Clock,
    *,
    request_id: str = "",
) -> Task:
    """Changes the fields of a task that are given, by the names of the model's, to what they are given as.

    A field that is so already is no change, so that a client may send back all that can be changed as it has read it;
    `status` comes last. What has changed goes to the audit.

    Raises TaskNotFound, TaskOfAnotherAgent, InvalidArgument, TaskCanceled, TaskCompleted.
    """
    before = task = lock_own_task(connection, task_id, caller)
    changes = {name: value for name, value in given.items() if _differs(getattr(task, name), value)}
    if changes and task.status is TaskStatus.CANCELED:
        raise TaskCanceled(task_id)
    changes.pop("status", None)
    if changes:
        task = _change(connection, task, changes, clock.now())
    if status := given.get("status"):
        task = MOVES[status](connection, task, new_trace, clock).task
    audit_change(connection, "task.update", before, task, caller, clock, request_id=request_id)
    return task


def _change(connection: Connection, task: Task, changes: dict[str, Any], now: datetime) -> Task:
    if changes.get("schedule_kind", ScheduleKind.CONDITION) is not ScheduleKind.CONDITION and task.condition:
        # There is no way to say that a message is to be empty.
        changes.setdefault("condition", None)
    wanted = replace(task, **changes)
    faults: list[Violation] = []
    if not _SCHEDULE.isdisjoint(changes):
        _leave_schedule(connection, task, now)
        new_times, faults = _new_times(connection, wanted, now)
        changes |= new_times
    if not _MISFIRE.isdisjoint(changes):
        faults += misfire_faults(wanted.schedule_kind, wanted.misfire)
    if not _FILTER.isdisjoint(changes):
        faults += filter_faults(wanted.schedule_kind, wanted.event_filter)
    if "concurrency_key" in changes:
        faults += key_faults(wanted)
    if not _PAYLOAD.isdisjoint(changes):
        faults += payload_faults(connection, wanted.payload, wanted.schedule_kind)
    if not _CONDITION.isdisjoint(changes):
        faults += condition_faults(connection, wanted.schedule_kind, wanted.condition, wanted.payload)
    if faults:
        raise InvalidArgument.of(faults)
    changed = task_store.change_task(connection, task, **changes, updated_at=now)
    follow_task(connection, task, changed, now)
    return changed


def _new_times(connection: Connection, wanted: Task, now: datetime) -> tuple[dict[str, Any], list[Violation]]:
    """What a new schedule changes of a task beside itself, and its faults. It begins now, paused or not."""
    first, faults = first_fire_time(wanted.schedule_kind, wanted.schedule_expr, wanted.timezone, now)
    if first and task_store.is_judged(connection, wanted.id, first):
        faults.append(Violation("schedule_expr", f"{first.isoformat()} has its outcome: choose another, or run it now"))
    status = TaskStatus.ACTIVE if wanted.status is TaskStatus.COMPLETED else wanted.status
    return {"schedule_anchor": now, "next_fire_at": first, "next_scheduled_for": first, "status": status}, faults


def _leave_schedule(connection: Connection, task: Task, now: datetime) -> None:
    """Gives an outcome to the times of the old schedule that have come and were not judged yet."""
    if task.next_scheduled_for and task.next_scheduled_for <= now:
        outcome = Outcome.PAUSED if task.status is TaskStatus.PAUSED else Outcome.CANCELED
        drop_pending(connection, task, outcome, "the schedule was changed before it fired", now)


def _differs(stored: Any, given: Any) -> bool:
    if isinstance(given, dict):
        # True is not 1 here.
        return orjson.dumps(stored, option=orjson.OPT_SORT_KEYS) != orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
    return bool(stored != given)

"""What is told of changes that people make to tasks: to the audit, and to who waits for such events."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox, telemetry
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.tasks.models.task import Task, TaskStatus
from services.tasks.store import tables
from services.tasks.store.domain_event import DomainEvent, publish

_TOPICS = {
    "task.update": "task.updated",
    "task.pause": "task.paused",
    "task.resume": "task.resumed",
    "task.cancel": "task.canceled",
    "task.snooze": "task.snoozed",
}
_MOVED = {
    TaskStatus.ACTIVE: "task.resumed",
    TaskStatus.PAUSED: "task.paused",
    TaskStatus.CANCELED: "task.canceled",
    TaskStatus.COMPLETED: "task.completed",
}
# They follow from the others, or say nothing.
_UNTOLD = ("schedule_anchor", "updated_at")


def audit_change(
    connection: Connection,
    action: str,
    before: Task,
    after: Task,
    caller: Caller,
    clock: Clock,
    *,
    runs: int = 0,
    note: str = "",
    request_id: str = "",
) -> None:
    """Publishes what a caller has changed of a task, and of how many runs; nothing when nothing has changed.

    The audit hears of the fields before and after, and everybody of their names.
    """
    changed = [name for name, value in vars(before).items() if value != getattr(after, name) and name not in _UNTOLD]
    if changed or runs:
        outbox.audit(
            connection,
            tables.outbox,
            clock,
            action=action,
            actor=caller.agent_id,
            resource=f"task/{after.id}",
            before={name: _told(getattr(before, name)) for name in changed},
            after={name: _told(getattr(after, name)) for name in changed} | ({"runs": runs} if runs else {}),
            note=note,
            request_id=request_id,
        )
        tell_task(connection, _topics(action, before, after), after, caller, clock, changed=changed)


def tell_task(
    connection: Connection, topics: Sequence[str], task: Task, caller: Caller, clock: Clock, changed: Sequence[str] = ()
) -> None:
    """Publishes that something happened to a task, for the tasks that wait for that."""
    payload = task_payload(task) | {"changed_by": caller.agent_id, "changed": list(changed)}
    told = [DomainEvent(topic, payload, telemetry.traceparent()) for topic in topics]
    publish(connection, told, clock.now())


def task_payload(task: Task) -> dict[str, Any]:
    """A task, as events tell of it."""
    return {
        "task_id": task.id,
        "title": task.title,
        "status": task.status.value,
        "schedule_kind": task.schedule_kind.value,
        "role": task.role,
        "created_by": task.created_by,
    }


def _topics(action: str, before: Task, after: Task) -> list[str]:
    """What has happened: a change of status that is part of a larger change is told by itself, too."""
    topics = [_TOPICS[action]]
    if before.status is not after.status and (moved := _MOVED.get(after.status)):
        topics.append(moved)
    return list(dict.fromkeys(topics))


def _told(value: Any) -> Any:
    """A value as JSON has it; of a payload, which may be large and nobody else's business, its digest."""
    match value:
        case datetime():
            return value.isoformat()
        case StrEnum():
            return value.value
        case dict():
            return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return value

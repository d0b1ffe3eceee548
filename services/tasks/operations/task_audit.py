"""What is told of changes that people make to tasks."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.tasks.models.task import Task
from services.tasks.store import tables

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
    """Publishes the fields of a task that a caller has changed, and of how many runs; nothing when nothing has."""
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

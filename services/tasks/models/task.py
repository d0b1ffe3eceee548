"""Tasks."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class ScheduleKind(StrEnum):
    """What makes a task run."""

    CRON = "cron"
    ONCE = "once"
    MANUAL = "manual"


class TaskStatus(StrEnum):
    """Whether a task's schedule fires."""

    ACTIVE = "active"
    PAUSED = "paused"
    CANCELED = "canceled"


@dataclass(frozen=True)
class NewTask:
    """What a caller says of a task to be created."""

    title: str
    description: str
    schedule_kind: ScheduleKind
    schedule_expr: str
    timezone: str
    payload: dict[str, Any]
    priority: int
    created_by: str
    """Empty: the caller."""


@dataclass(frozen=True)
class Task:
    """A pipeline and the schedule that starts it."""

    id: str
    title: str
    description: str
    schedule_kind: ScheduleKind
    schedule_expr: str
    timezone: str
    payload: dict[str, Any]
    priority: int
    created_by: str
    status: TaskStatus
    next_fire_at: datetime | None
    created_at: datetime
    updated_at: datetime

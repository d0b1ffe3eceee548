"""Tasks."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.chassis.backoff import BackoffStrategy
from services.tasks.models.topic import matches


class ScheduleKind(StrEnum):
    """What makes a task run."""

    CRON = "cron"
    RRULE = "rrule"
    ONCE = "once"
    MANUAL = "manual"
    EVENT = "event"
    CONDITION = "condition"


class TaskStatus(StrEnum):
    """Whether a task's schedule fires."""

    ACTIVE = "active"
    PAUSED = "paused"
    CANCELED = "canceled"
    COMPLETED = "completed"


class Misfire(StrEnum):
    """What becomes of nominal times that were noticed late."""

    SKIP = "skip"
    RUN_ONCE = "run_once"
    RUN_ALL = "run_all"


class Overlap(StrEnum):
    """What becomes of a nominal time that comes while an earlier run is not finished."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


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
    dedupe_key: str
    dedupe_window_seconds: int
    max_retries: int
    backoff_strategy: BackoffStrategy
    concurrency_key: str
    misfire: Misfire
    overlap: Overlap
    role: str
    created_by: str
    """Empty: the caller."""
    event_filter: str = ""
    condition: dict[str, Any] | None = None
    """As `Condition.stored` makes it; None for every kind but condition."""


@dataclass(frozen=True)
class Task:
    """A pipeline and the schedule that starts it."""

    id: str
    title: str
    description: str
    schedule_kind: ScheduleKind
    schedule_expr: str
    schedule_anchor: datetime
    """Where a recurrence rule that names no DTSTART begins: when the schedule was set."""
    timezone: str
    payload: dict[str, Any]
    priority: int
    dedupe_key: str
    dedupe_window_seconds: int
    max_retries: int
    backoff_strategy: BackoffStrategy
    concurrency_key: str
    misfire: Misfire
    overlap: Overlap
    role: str
    created_by: str
    status: TaskStatus
    paused_at: datetime | None
    next_fire_at: datetime | None
    next_scheduled_for: datetime | None
    """The nominal time that fires at `next_fire_at`; earlier than it after a snooze."""
    created_at: datetime
    updated_at: datetime
    event_filter: str = ""
    """What has to be true of an event for it to make a run; empty lets all of its topic through."""
    condition: dict[str, Any] | None = None
    """As `Condition.stored` makes it; None for every kind but condition."""

    def waits_for(self, topic: str) -> bool:
        """Whether events of a topic are for this task, paused or not."""
        is_waiting = self.schedule_kind is ScheduleKind.EVENT and self.status is not TaskStatus.CANCELED
        return is_waiting and matches(self.schedule_expr, topic)

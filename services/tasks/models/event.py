"""Events, and what they do to tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_PAYLOAD_BYTES = 256 * 1024
MAX_DEPTH = 8
"""How many events may follow from one another, each through a run of a task: so no loop goes on for ever."""


class Origin(StrEnum):
    """Who published an event."""

    EXTERNAL = "external"
    BATON = "baton"


class DeliveryOutcome(StrEnum):
    """What an event did to a task whose topic it matched."""

    RAN = "ran"
    FILTERED = "filtered"
    FILTER_ERROR = "filter_error"
    SUPPRESSED_DUPLICATE = "suppressed_duplicate"
    SKIPPED_OVERLAP = "skipped_overlap"
    PAUSED = "paused"
    DEPTH_EXCEEDED = "depth_exceeded"


@dataclass(frozen=True)
class NewEvent:
    """What a caller wants to publish."""

    topic: str
    payload: dict[str, Any]
    source_agent_id: str
    """Empty: the caller."""


@dataclass(frozen=True)
class Incoming:
    """A message of a stream that is to become an event, and was found fit for it."""

    source_key: str
    """What it is known by: one event is made of it, however often it is delivered."""
    topic: str
    payload: dict[str, Any]
    payload_bytes: int


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    id: str
    topic: str
    payload: Mapping[str, Any]
    payload_bytes: int
    origin: Origin
    source_agent_id: str | None
    published_by: str | None
    depth: int
    traceparent: str
    replay_of: str | None
    published_at: datetime
    dispatched_at: datetime | None = None
    dispatched_to: str | None = None
    """The last task that it was matched with, while there are more."""
    matched_tasks: int = 0
    triggered_runs: int = 0
    source_key: str | None = None
    """The message of a stream that it was made of."""

    @property
    def trace_id(self) -> str:
        """The trace that it was published in, out of `00-<trace id>-<span id>-<flags>`."""
        return self.traceparent[3:35]

    @property
    def is_too_deep(self) -> bool:
        """Whether it makes no more runs."""
        return self.depth > MAX_DEPTH

    @property
    def reason(self) -> str:
        """Why no run was made of it; empty when one was."""
        if self.triggered_runs:
            return ""
        if self.dispatched_at is None:
            return "it is still to be matched with tasks"
        if not self.matched_tasks:
            return "no active event task has a matching topic"
        return f"{self.matched_tasks} {'tasks have' if self.matched_tasks > 1 else 'task has'} its topic, and none ran"


@dataclass(frozen=True)
class Delivery:
    """What an event did to one task."""

    event_id: str
    task_id: str
    outcome: DeliveryOutcome
    reason: str
    run_id: str | None
    """The run that was queued, or the one that was in the way."""
    decided_at: datetime


@dataclass(frozen=True)
class Trigger:
    """The event of a run."""

    event_id: str
    topic: str
    payload: Mapping[str, Any]
    depth: int


@dataclass(frozen=True)
class EventFilter:
    """Which events to list."""

    topic: str = ""
    """A topic, or a pattern of topics; empty for any."""
    since: datetime | None = None
    """Compared with the time in the event's id."""
    until: datetime | None = None
    matched: bool | None = None
    """Whether any task had its topic; None for both."""

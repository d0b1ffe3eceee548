"""What agents, and the programs around them, write down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class EventCategory(StrEnum):
    """Where an entry of an agent's log comes from."""

    HOOK = "hook"
    RESPONSE = "response"


class LogLevel(StrEnum):
    """How much a line of the system log matters."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class NewAgentLog:
    """What is to be added to an agent's log."""

    task_slug: str
    session_id: str
    event_category: EventCategory
    event_type: str
    content: str
    payload: Mapping[str, Any] | None
    summary: str
    workflow_id: str | None
    workflow_step: str
    timestamp: datetime | None
    """When it happened; None for when it is written."""


@dataclass(frozen=True)
class AgentBatch:
    """Entries for the log of one agent, in their order."""

    agent_id: str
    entries: Sequence[NewAgentLog]


@dataclass(frozen=True, kw_only=True)
class AgentLog:
    """An entry of an agent's log."""

    position: int
    id: str
    agent_id: str
    session_id: str
    task_slug: str
    entry_index: int
    event_category: EventCategory
    event_type: str
    content: str
    payload: Mapping[str, Any] | None
    summary: str
    workflow_id: str | None
    workflow_step: str
    timestamp: datetime
    recorded_at: datetime


@dataclass(frozen=True)
class AgentLogFilter:
    """Which entries of an agent's log are wanted; what is empty lets all through."""

    agent_id: str
    task_slug: str = ""
    event_category: EventCategory | None = None
    event_types: tuple[str, ...] = ()
    session_id: str = ""
    workflow_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Tail:
    """The end of an agent's log about one piece of work."""

    entries: list[AgentLog]
    """The oldest first."""
    task_slug: str
    next_index: int


@dataclass(frozen=True, kw_only=True)
class NewSystemLog:
    """What is to be added to the system log."""

    level: LogLevel
    message: str
    file_path: str
    summary: str
    metadata: Mapping[str, Any] | None
    workflow_id: str | None
    workflow_step: str
    timestamp: datetime | None
    """When it happened; None for when it is written."""


@dataclass(frozen=True)
class SystemBatch:
    """Lines for the system log, in their order, and who writes them."""

    agent_id: str
    entries: Sequence[NewSystemLog]


@dataclass(frozen=True, kw_only=True)
class SystemLog:
    """A line of the system log."""

    position: int
    id: str
    agent_id: str
    level: LogLevel
    message: str
    file_path: str
    summary: str
    metadata: Mapping[str, Any] | None
    workflow_id: str | None
    workflow_step: str
    timestamp: datetime
    recorded_at: datetime


@dataclass(frozen=True)
class SystemLogFilter:
    """Which lines of the system log are wanted; what is empty lets all through."""

    levels: tuple[LogLevel, ...] = ()
    message_contains: str = ""
    agent_id: str = ""
    workflow_id: str = ""
    since: datetime | None = None
    until: datetime | None = None

"""Sessions: one piece of an agent's work each, and how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

EXPIRY = "baton.expiry"
"""Who lets sessions expire, as transitions and the audit name it."""


class SessionStatus(StrEnum):
    """How far a session is."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"

    @property
    def followers(self) -> tuple["SessionStatus", ...]:
        """What can follow; nothing when it is an end."""
        return _FOLLOWERS[self]

    @property
    def is_final(self) -> bool:
        """Whether it is an end."""
        return not self.followers

    @property
    def events(self) -> tuple["SessionEvent", ...]:
        """What can happen."""
        return tuple(event for event in SessionEvent if event.begins == self)


class SessionEvent(StrEnum):
    """What can happen to a session."""

    ACTIVATE = "activate"
    PAUSE = "pause"
    RESUME = "resume"
    COMPLETE = "complete"
    FAIL = "fail"

    @property
    def begins(self) -> SessionStatus:
        """In which status it can happen."""
        return _EVENTS[self][0]

    @property
    def leads_to(self) -> SessionStatus:
        """What the session is then."""
        return _EVENTS[self][1]


_FOLLOWERS: Mapping[SessionStatus, tuple[SessionStatus, ...]] = {
    SessionStatus.PENDING: (SessionStatus.ACTIVE, SessionStatus.EXPIRED),
    SessionStatus.ACTIVE: (
        SessionStatus.PAUSED,
        SessionStatus.COMPLETED,
        SessionStatus.FAILED,
        SessionStatus.EXPIRED,
    ),
    SessionStatus.PAUSED: (SessionStatus.ACTIVE, SessionStatus.EXPIRED),
    SessionStatus.COMPLETED: (),
    SessionStatus.FAILED: (),
    SessionStatus.EXPIRED: (),
}
_EVENTS: Mapping[SessionEvent, tuple[SessionStatus, SessionStatus]] = {
    SessionEvent.ACTIVATE: (SessionStatus.PENDING, SessionStatus.ACTIVE),
    SessionEvent.PAUSE: (SessionStatus.ACTIVE, SessionStatus.PAUSED),
    SessionEvent.RESUME: (SessionStatus.PAUSED, SessionStatus.ACTIVE),
    SessionEvent.COMPLETE: (SessionStatus.ACTIVE, SessionStatus.COMPLETED),
    SessionEvent.FAIL: (SessionStatus.ACTIVE, SessionStatus.FAILED),
}


class Lapse(StrEnum):
    """Why a session expires."""

    IDLE_TIMEOUT = "idle_timeout"
    MAX_LIFETIME = "max_lifetime"
    RETENTION = "retention"


@dataclass(frozen=True, kw_only=True)
class NewSession:
    """What a caller wants to begin."""

    agent_role: str
    agent_id: str
    task_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    idle_timeout_seconds: int | None = None
    max_lifetime_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Session:
    """One piece of an agent's work, from its beginning to its end."""

    id: str
    agent_role: str
    agent_id: str
    """Whose it is."""
    created_at: datetime
    updated_at: datetime
    last_activity_at: datetime
    """When anything last happened, heartbeats included."""
    task_id: str | None = None
    status: SessionStatus = SessionStatus.PENDING
    metadata: Mapping[str, Any] = field(default_factory=dict)
    idle_timeout_seconds: int | None = None
    max_lifetime_seconds: int | None = None
    version: int = 1
    """One more with every change but heartbeats."""
    last_transition_at: datetime | None = None

    def end(self, retention: timedelta | None = None) -> tuple[datetime, Lapse] | None:
        """When it expires unless something happens before, and why; None when it has ended or never will.

        `retention` is how long a session may have no activity whatever it says itself; None for ever.
        """
        if self.status.is_final:
            return None
        ends = []
        if self.idle_timeout_seconds is not None:
            ends.append((self.last_activity_at + timedelta(seconds=self.idle_timeout_seconds), Lapse.IDLE_TIMEOUT))
        if self.max_lifetime_seconds is not None:
            ends.append((self.created_at + timedelta(seconds=self.max_lifetime_seconds), Lapse.MAX_LIFETIME))
        if retention is not None:
            ends.append((self.last_activity_at + retention, Lapse.RETENTION))
        return min(ends, default=None)

    def lapse(self, now: datetime, retention: timedelta | None) -> Lapse | None:
        """Why its time is over; None when it is not, or the session has ended already."""
        end = self.end(retention)
        return end[1] if end is not None and end[0] <= now else None

    def since(self, status: SessionStatus) -> datetime | None:
        """Since when it has this status; None when it has another one."""
        return self.last_transition_at if self.status == status else None


@dataclass(frozen=True)
class Transition:
    """One change of a session's status."""

    session_id: str
    version: int
    """The session's from then on."""
    from_status: SessionStatus
    to_status: SessionStatus
    event: SessionEvent | None
    """None when the status was set, or the session expired."""
    reason: str
    actor: str
    occurred_at: datetime


@dataclass(frozen=True)
class SessionFilter:
    """Which sessions are wanted; what is empty lets all through."""

    statuses: tuple[SessionStatus, ...] = ()
    agent_role: str = ""
    agent_id: str = ""
    task_id: str = ""

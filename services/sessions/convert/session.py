"""Sessions between the wire and the rules."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from baton.sessions.v1 import session_pb2
from baton.sessions.v1 import session_service_pb2 as pb

from services.chassis.call import Caller
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.models.session import (
    NewSession,
    Session,
    SessionEvent,
    SessionFilter,
    SessionStatus,
    Transition,
)

DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 20, 100
MAX_OFFSET = 10_000
_CHANGEABLE = ("task_id", "status", "metadata", "idle_timeout_seconds", "max_lifetime_seconds")
# What the change needs, not what is changed.
_NOT_CHANGED = ("version", "reason")


@dataclass(frozen=True)
class Page:
    """Which page of sessions is wanted."""

    size: int
    number: int | None
    """None behind a cursor, and with a `limit`."""

    @property
    def offset(self) -> int:
        """How many sessions are passed over."""
        return self.size * ((self.number or 1) - 1)


def new_session(request: pb.CreateSessionRequest, caller: Caller) -> NewSession:
    """What the caller wants to begin."""
    return NewSession(
        agent_role=request.agent_role,
        agent_id=stored_id(request.agent_id) or caller.agent_id,
        task_id=stored_id(request.task_id) or None,
        metadata=from_struct(request.metadata),
        idle_timeout_seconds=_seconds(request, "idle_timeout_seconds"),
        max_lifetime_seconds=_seconds(request, "max_lifetime_seconds"),
    )


def session_changes(request: pb.UpdateSessionRequest) -> dict[str, Any]:
    """What the caller wants to be different. A status that is named and not given stays. Raises InvalidArgument."""
    given = {field.name for field, _ in request.ListFields()}
    named = [name for name in dict.fromkeys(request.update_mask.paths) if name not in _NOT_CHANGED]
    if strangers := [name for name in named if name not in _CHANGEABLE]:
        raise InvalidArgument.of(Violation("update_mask", _unchangeable(name)) for name in strangers)
    wanted = named if request.update_mask.paths else [name for name in _CHANGEABLE if name in given]
    return {name: _value(request, name) for name in wanted if name in given or name != "status"}


def session_event(request: pb.SendSessionEventRequest) -> SessionEvent:
    """What has happened."""
    return from_enum(SessionEvent, session_pb2.SessionEvent, request.event)


def expected_version(request: pb.UpdateSessionRequest | pb.SendSessionEventRequest) -> int | None:
    """The version that is to be changed; None for whichever it is."""
    return request.version if request.HasField("version") else None


def session_filter(request: pb.ListSessionsRequest) -> SessionFilter:
    """Which sessions the caller wants to see."""
    given = (from_enum(SessionStatus, session_pb2.SessionStatus, status) for status in request.status)
    return SessionFilter(
        statuses=tuple(dict.fromkeys(given)),
        agent_role=request.agent_role,
        agent_id=stored_id(request.agent_id),
        task_id=stored_id(request.task_id),
    )


def page(request: pb.ListSessionsRequest) -> Page:
    """Which page the caller wants. Raises InvalidArgument for one that is out of range."""
    numbered = request.HasField("page") or request.HasField("page_size")
    if request.HasField("limit"):
        if numbered:
            raise _fault("limit", "does not go together with page and page_size: give it alone, or with a cursor")
        return Page(request.limit, None)
    size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
    size = min(max(size, 1), MAX_PAGE_SIZE)
    if request.cursor:
        if request.HasField("page"):
            raise _fault("page", "does not go together with a cursor: leave one of them out")
        return Page(size, None)
    number, last = request.page if request.HasField("page") else 1, MAX_OFFSET // size + 1
    if not 1 <= number <= last:
        further = "further on goes the cursor that each page has as next_cursor"
        raise _fault("page", f"is {number}, and must be from 1 to {last} with a page_size of {size}: {further}")
    return Page(size, number)


def cursor_request(request: pb.ListSessionsRequest, page: Page) -> pb.ListSessionsRequest:
    """The request as cursors are bound to it: who has come by page numbers may go on by cursor."""
    bound = pb.ListSessionsRequest()
    bound.CopyFrom(request)
    bound.ClearField("page")
    bound.ClearField("page_size")
    bound.limit = page.size
    return bound


def session_message(session: Session, retention: timedelta | None) -> session_pb2.Session:
    """A session as it is answered."""
    end = session.end(retention)
    return session_pb2.Session(
        session_id=session.id,
        agent_role=session.agent_role,
        state=to_enum(session.status, session_pb2.SessionStatus),
        idle_timeout_seconds=session.idle_timeout_seconds,
        max_lifetime_seconds=session.max_lifetime_seconds,
        expires_at=to_timestamp(end[0]) if end else None,
        **_common(session),
    )


def row_message(session: Session) -> session_pb2.SessionRow:
    """A session as it is listed."""
    return session_pb2.SessionRow(
        id=session.id,
        role=session.agent_role,
        status=to_enum(session.status, session_pb2.SessionStatus),
        **_common(session),
    )


def created_message(session: Session) -> pb.CreateSessionResponse:
    """A session that has just begun."""
    return pb.CreateSessionResponse(
        session_id=session.id,
        status=to_enum(session.status, session_pb2.SessionStatus),
        version=session.version,
    )


def heartbeat_message(session: Session, retention: timedelta | None) -> pb.HeartbeatSessionResponse:
    """Until when a session is alive."""
    end = session.end(retention)
    return pb.HeartbeatSessionResponse(
        session_id=session.id,
        state=to_enum(session.status, session_pb2.SessionStatus),
        last_activity_at=to_timestamp(session.last_activity_at),
        expires_at=to_timestamp(end[0]) if end else None,
    )


def transition_message(transition: Transition) -> session_pb2.SessionTransition:
    """One change of a session's status."""
    return session_pb2.SessionTransition(
        version=transition.version,
        from_status=to_enum(transition.from_status, session_pb2.SessionStatus),
        to_status=to_enum(transition.to_status, session_pb2.SessionStatus),
        event=to_enum(transition.event, session_pb2.SessionEvent) if transition.event else None,
        reason=transition.reason,
        actor=transition.actor,
        occurred_at=to_timestamp(transition.occurred_at),
    )


def active_position(session: Session) -> str:
    """Where a session is in the list of active ones."""
    return f"{session.updated_at.isoformat()} {session.id}"


def active_before(position: list[str | int] | None) -> tuple[datetime, str] | None:
    """Behind which change and id a page of active sessions starts; None for the first page."""
    if position is None:
        return None
    instant, _, session_id = str(position[0]).partition(" ")
    return datetime.fromisoformat(instant), session_id


def _common(session: Session) -> dict[str, Any]:
    return {
        "task_id": session.task_id,
        "metadata": to_struct(session.metadata),
        "agent_id": session.agent_id,
        "version": session.version,
        "created_at": to_timestamp(session.created_at),
        "updated_at": to_timestamp(session.updated_at),
        "last_activity_at": to_timestamp(session.last_activity_at),
        "last_transition_at": to_timestamp(session.last_transition_at),
        "paused_at": to_timestamp(session.since(SessionStatus.PAUSED)),
        "completed_at": to_timestamp(session.since(SessionStatus.COMPLETED)),
        "failed_at": to_timestamp(session.since(SessionStatus.FAILED)),
        "expired_at": to_timestamp(session.since(SessionStatus.EXPIRED)),
    }


def _value(request: pb.UpdateSessionRequest, name: str) -> Any:
    match name:
        case "task_id":
            return stored_id(request.task_id) or None
        case "metadata":
            return from_struct(request.metadata)
        case "status":
            return from_enum(SessionStatus, session_pb2.SessionStatus, request.status)
    return _seconds(request, name)


def _seconds(request: pb.CreateSessionRequest | pb.UpdateSessionRequest, name: Any) -> int | None:
    return getattr(request, name) if request.HasField(name) else None


def _fault(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of([Violation(field, description)])


def _unchangeable(name: str) -> str:
    return f"names {name!r}, which cannot be changed: use some of {', '.join(_CHANGEABLE)}"

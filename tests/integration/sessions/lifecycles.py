"""Sessions in tests: who has them, and how they are moved."""

from typing import Any

from baton.sessions.v1.session_pb2 import Session, SessionEvent, SessionStatus, SessionTransition
from baton.sessions.v1.session_service_pb2 import (
    CreateSessionRequest,
    GetSessionRequest,
    HeartbeatSessionRequest,
    HeartbeatSessionResponse,
    ListSessionTransitionsRequest,
    SendSessionEventRequest,
    UpdateSessionRequest,
)
from baton.sessions.v1.session_service_pb2_grpc import SessionServiceStub
from sqlalchemy import select

from services.sessions.models.session import SessionStatus as Status
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

# How each status is reached.
WAYS: dict[Status, tuple[str, ...]] = {
    Status.PENDING: (),
    Status.ACTIVE: ("activate",),
    Status.PAUSED: ("activate", "pause"),
    Status.COMPLETED: ("activate", "complete"),
    Status.FAILED: ("activate", "fail"),
    Status.EXPIRED: ("expire",),
}


class Owner:
    """An agent that has sessions, and calls for itself."""

    def __init__(self, sessions: Sessions, agent_id: str, caller: SessionServiceStub) -> None:
        self.sessions = sessions
        self.agent_id = agent_id
        self.caller = caller

    async def begin(self, status: Status = Status.PENDING, **fields: Any) -> str:
        """The id of a new session in this status."""
        request = CreateSessionRequest(**{"agent_role": "planner"} | fields)
        session_id = (await self.caller.CreateSession(request)).session_id
        for step in WAYS[status]:
            if step == "expire":
                await self.update(session_id, status=wire(Status.EXPIRED))
            else:
                await self.send(session_id, step)
        return session_id

    async def read(self, session_id: str) -> Session:
        return (await self.caller.GetSession(GetSessionRequest(session_id=session_id))).session

    async def status(self, session_id: str) -> Status:
        state = (await self.read(session_id)).state
        return Status(SessionStatus.Name(state).removeprefix("SESSION_STATUS_").lower())

    async def update(self, session_id: str, **fields: Any) -> Session:
        return (await self.caller.UpdateSession(UpdateSessionRequest(session_id=session_id, **fields))).session

    async def send(self, session_id: str, event: str, **fields: Any) -> Session:
        number = SessionEvent.Value(f"SESSION_EVENT_{event.upper()}")
        request = SendSessionEventRequest(session_id=session_id, event=number, **fields)
        return (await self.caller.SendSessionEvent(request)).session

    async def heartbeat(self, session_id: str) -> HeartbeatSessionResponse:
        return await self.caller.HeartbeatSession(HeartbeatSessionRequest(session_id=session_id))

    async def transitions(self, session_id: str) -> list[SessionTransition]:
        """Oldest first."""
        request = ListSessionTransitionsRequest(session_id=session_id, limit=200)
        return list(reversed((await self.caller.ListSessionTransitions(request)).items))

    async def path(self, session_id: str) -> list[tuple[str, str]]:
        """From which status to which the session went, oldest first."""
        return [
            (
                SessionStatus.Name(one.from_status).removeprefix("SESSION_STATUS_").lower(),
                SessionStatus.Name(one.to_status).removeprefix("SESSION_STATUS_").lower(),
            )
            for one in await self.transitions(session_id)
        ]


async def owner_of(sessions: Sessions, *scopes: str) -> Owner:
    """A new agent that has sessions."""
    agent = await sessions.agent()
    return Owner(sessions, agent.id, sessions.lifecycle(agent.id, *scopes))


def wire(status: Status) -> Any:
    return SessionStatus.Value(f"SESSION_STATUS_{status.upper()}")


async def told(sessions: Sessions, topic: str) -> list[dict[str, Any]]:
    """What the outbox holds of sessions, oldest first: of `audit` the entries, of `event` the events."""
    query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == topic).order_by(tables.outbox.c.id)
    rows = await sessions.database.read(lambda connection, clock: list(connection.execute(query).scalars()))
    about = "resource" if topic == "audit" else "topic"
    return [row for row in rows if row[about].startswith("session")]

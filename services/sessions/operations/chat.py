"""Talking to the orchestrator and its agents."""

import hashlib
from collections.abc import Iterator

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.chassis.json_limits import metadata_faults
from services.sessions.models.agent import Agent
from services.sessions.models.chat import ChatFilter, ChatMessage, ChatParty, NewMessage
from services.sessions.operations.holding import check_speaks_for
from services.sessions.operations.orchestrator import get_orchestrator
from services.sessions.store import agent as agent_store
from services.sessions.store import chat as store
from services.sessions.store import positions, tables

MAX_COUNT = 10_001


def send_message(
    connection: Connection, new: NewMessage, sender: Caller, clock: Clock, *, request_id: str = ""
) -> ChatMessage:
    """Stores a message. Raises OrchestratorNotFound, InvalidArgument, or ScopeMissing for another one's words."""
    orchestrator_id = new.orchestrator_agent_id or get_orchestrator(connection).id
    faults = [*new.faults(), *metadata_faults(new.metadata or {})]
    faults += _agent_faults(connection, new, orchestrator_id)
    if faults:
        raise InvalidArgument.of(faults)
    _check_speaks_as(sender, new, orchestrator_id)
    taken = positions.take(connection, 1, clock.now())
    message = ChatMessage(
        **vars(new) | {"orchestrator_agent_id": orchestrator_id},
        position=taken.first_position,
        id=new_id(),
        sent_by=sender.agent_id,
        created_at=taken.recorded_at,
    )
    store.add(connection, message)
    _audit(connection, clock, message, request_id)
    return message


def load(connection: Connection, *, orchestrator_id: str, limit: int) -> tuple[list[ChatMessage], int]:
    """The newest messages of an orchestrator's chat, oldest first, and how many it has, at most MAX_COUNT.

    No id is the orchestrator there is. Raises OrchestratorNotFound, or InvalidArgument for an id of none.
    """
    if not orchestrator_id:
        orchestrator_id = get_orchestrator(connection).id
    elif not _is_orchestrator(agent_store.find(connection, agent_id=orchestrator_id)):
        raise InvalidArgument.of([Violation("orchestrator_agent_id", "is not an orchestrator, and never was one")])
    newest = store.list_messages(connection, ChatFilter(orchestrator_agent_id=orchestrator_id), limit=limit)
    return newest[::-1], store.count(connection, orchestrator_id, at_most=MAX_COUNT)


def _is_orchestrator(agent: Agent | None) -> bool:
    return agent is not None and agent.is_orchestrator


def _agent_faults(connection: Connection, new: NewMessage, orchestrator_id: str) -> Iterator[Violation]:
    if new.orchestrator_agent_id:
        found = agent_store.find(connection, agent_id=orchestrator_id)
        if not _is_orchestrator(found) or found is None or found.is_archived:
            description = "is not the orchestrator, or is archived: leave it out for the one there is"
            yield Violation("orchestrator_agent_id", description)
    if new.agent_id is None:
        return
    agent = agent_store.find(connection, agent_id=new.agent_id)
    if agent is None or agent.is_archived:
        yield Violation("agent_id", "is no agent, or is archived")
    elif agent.id == orchestrator_id:
        yield Violation("agent_id", "is the orchestrator itself: it takes the side `orchestrator`")


def _check_speaks_as(sender: Caller, new: NewMessage, orchestrator_id: str) -> None:
    if new.sender_type is ChatParty.AGENT and new.agent_id is not None:
        check_speaks_for(sender, new.agent_id)
    elif new.sender_type is ChatParty.ORCHESTRATOR:
        check_speaks_for(sender, orchestrator_id)


def _audit(connection: Connection, clock: Clock, message: ChatMessage, request_id: str) -> None:
    told = {
        "orchestrator_agent_id": message.orchestrator_agent_id,
        "sender_type": message.sender_type.value,
        "receiver_type": message.receiver_type.value,
        "agent_id": message.agent_id,
        "message_sha256": hashlib.sha256(message.message.encode()).hexdigest(),
    }
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action="chat_message.send",
        actor=message.sent_by,
        resource=f"chat_message/{message.id}",
        after=told,
        request_id=request_id,
    )

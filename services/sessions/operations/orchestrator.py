"""The one agent that orchestrates the others."""

from dataclasses import replace

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.egress.guard import Guard
from services.sessions.errors import AgentNameTaken, OrchestratorNotFound
from services.sessions.models.agent import Agent, NewAgent
from services.sessions.operations.agent import audit_creation, lock_live_agent, save_change, wanted_agent
from services.sessions.store import agent as store


def get_orchestrator(connection: Connection) -> Agent:
    """The orchestrator, or OrchestratorNotFound."""
    orchestrator = store.find_orchestrator(connection)
    if orchestrator is None:
        raise OrchestratorNotFound
    return orchestrator


def ensure_orchestrator(
    connection: Connection, new: NewAgent, guard: Guard, caller: Caller, clock: Clock, *, request_id: str = ""
) -> tuple[Agent, bool]:
    """The orchestrator, and whether it was created just now.

    Raises as create_agent does; what is wanted is checked even when it is there already.
    """
    agent = wanted_agent(connection, replace(new, is_orchestrator=True), guard, caller, clock)
    if store.insert_unless_taken(connection, agent):
        audit_creation(connection, agent, caller.agent_id, clock, request_id=request_id)
        return agent, True
    present = store.find_orchestrator(connection)
    if present is None:
        raise AgentNameTaken(new.name)
    return present, False


def reset_context(connection: Connection, caller: Caller, clock: Clock, *, request_id: str = "") -> Agent:
    """The orchestrator, whose own program is in no session any more. Raises OrchestratorNotFound."""
    before = lock_live_agent(connection, get_orchestrator(connection).id)
    return save_change(
        connection,
        before,
        replace(before, session_id=None),
        clock,
        action="agent.reset_context",
        actor=caller.agent_id,
        request_id=request_id,
    )

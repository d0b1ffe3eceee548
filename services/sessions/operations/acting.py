"""Acting for other agents, as workers do for the owners of runs."""

from collections.abc import Sequence

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.sessions import scopes as scope_rules
from services.sessions.errors import AgentArchived
from services.sessions.models.token import Grant
from services.sessions.operations.agent import get_agent
from services.sessions.operations.holding import check_held
from services.sessions.operations.token import ACCESS_LIFETIME


def act_for_agent(
    connection: Connection, *, caller: Caller, agent_id: str, scopes: Sequence[str], run_id: str, clock: Clock
) -> Grant:
    """What the caller may do in the name of an agent for the next 60 seconds.

    Raises InvalidArgument for a scope that is not passed on, AgentNotFound, AgentArchived, ScopesNotHeld.
    """
    scope_rules.check_passed_on(scopes)
    agent = get_agent(connection, agent_id=agent_id)
    if agent.is_archived:
        raise AgentArchived(agent_id)
    check_held(scopes, agent.scopes, f"agent {agent_id}")
    now = clock.now()
    return Grant(
        agent_id=agent.id,
        token_id=caller.token_id,
        scopes=tuple(sorted(set(scopes))),
        issued_at=now,
        expires_at=(now + ACCESS_LIFETIME).replace(microsecond=0),
        role=agent.role,
        acting_agent_id=caller.agent_id,
        run_id=run_id,
    )

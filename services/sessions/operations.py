"""The rules about agents and tokens. Each runs inside one transaction."""

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.sessions import scopes as scope_rules
from services.sessions import tokens
from services.sessions.errors import AgentNameTaken, AgentNotFound, ScopesNotHeld, TokenInvalid, TokenNotFound
from services.sessions.models import Agent, Grant, MintedToken, Token
from services.sessions.store import agents as stored_agents
from services.sessions.store import tokens as stored_tokens

TOKEN_LIFETIME = timedelta(days=90)
ACCESS_LIFETIME = timedelta(seconds=60)
# Compared with when no token has the key id, so that the answer takes as long as for a wrong secret.
_NO_DIGEST = bytes(32)


def create_agent(
    connection: Connection, *, caller: Caller, name: str, scopes: Sequence[str], role: str, clock: Clock
) -> Agent:
    """A new agent with a name of its own, scopes that the caller holds, and a role, or none when it is empty."""
    scope_rules.check_known(scopes)
    _check_held(scopes, caller.scopes, "the caller")
    now = clock.now()
    agent = Agent(new_id(), name, tuple(sorted(set(scopes))), created_at=now, updated_at=now, role=role)
    if not stored_agents.insert_unless_named(connection, agent):
        raise AgentNameTaken(name)
    return agent


def ensure_agent(connection: Connection, *, agent_id: str, name: str, scopes: Sequence[str], clock: Clock) -> Agent:
    """The agent of that name with exactly these scopes, created with `agent_id` when there is none."""
    now = clock.now()
    agent = Agent(agent_id, name, tuple(sorted(scopes)), created_at=now, updated_at=now)
    if stored_agents.insert_unless_named(connection, agent):
        return agent
    present = stored_agents.find_named(connection, name=name)
    assert present is not None, "an agent cannot be deleted"
    if present.scopes == agent.scopes:
        return present
    stored_agents.set_scopes(connection, agent_id=present.id, scopes=agent.scopes, updated_at=now)
    return replace(present, scopes=agent.scopes, updated_at=now)


def get_agent(connection: Connection, *, agent_id: str) -> Agent:
    """The agent, or AgentNotFound."""
    agent = stored_agents.find(connection, agent_id=agent_id)
    if agent is None:
        raise AgentNotFound(agent_id)
    return agent


def create_token(
    connection: Connection,
    *,
    caller: Caller,
    agent_id: str,
    scopes: Sequence[str],
    lifetime: timedelta,
    clock: Clock,
) -> MintedToken:
    """A token for an agent with scopes that both it and the caller hold; no scopes means all of the agent's."""
    scope_rules.check_known(scopes)
    agent = get_agent(connection, agent_id=agent_id)
    wanted = scopes or agent.scopes
    _check_held(wanted, agent.scopes, "the agent")
    _check_held(wanted, caller.scopes, "the caller")
    return mint_token(connection, agent=agent, scopes=wanted, lifetime=lifetime, clock=clock)


def mint_token(
    connection: Connection, *, agent: Agent, scopes: Sequence[str], lifetime: timedelta, clock: Clock
) -> MintedToken:
    """Makes and stores a token. Whether the agent may have these scopes is for the caller to know."""
    text = tokens.new_token()
    key_id = tokens.key_id(text)
    assert key_id is not None
    now = clock.now()
    token = Token(
        id=new_id(),
        key_id=key_id,
        agent_id=agent.id,
        secret_hash=tokens.digest(text),
        scopes=tuple(sorted(set(scopes))),
        created_at=now,
        expires_at=now + lifetime,
    )
    stored_tokens.insert_token(connection, token)
    return MintedToken(token, text)


def revoke_token(connection: Connection, *, agent_id: str, token_id: str, clock: Clock) -> Token:
    """The agent's token, revoked now or before."""
    stored_tokens.revoke(connection, agent_id=agent_id, token_id=token_id, revoked_at=clock.now())
    token = stored_tokens.find(connection, agent_id=agent_id, token_id=token_id)
    if token is None:
        raise TokenNotFound(agent_id, token_id)
    return token


def authenticate(connection: Connection, *, text: str, clock: Clock) -> tuple[Token, Agent]:
    """The live token that `text` is, and its agent. Raises TokenInvalid."""
    key_id = tokens.key_id(text)
    if key_id is None:
        raise TokenInvalid
    token = stored_tokens.find_by_key(connection, key_id=key_id)
    proven = hmac.compare_digest(token.secret_hash if token else _NO_DIGEST, tokens.digest(text))
    if token is None or not proven or not token.is_live(clock.now()):
        raise TokenInvalid
    return token, get_agent(connection, agent_id=token.agent_id)


def exchange_token(connection: Connection, *, text: str, clock: Clock) -> Grant:
    """What the token grants for the next 60 seconds, or less when it ends earlier. Raises TokenInvalid."""
    token, agent = authenticate(connection, text=text, clock=clock)
    now = clock.now()
    return Grant(
        agent_id=agent.id,
        token_id=token.id,
        scopes=scope_rules.held_by_both(token.scopes, agent.scopes),
        issued_at=now,
        expires_at=min(now + ACCESS_LIFETIME, token.expires_at).replace(microsecond=0),
        role=agent.role,
    )


def act_for_agent(
    connection: Connection, *, caller: Caller, agent_id: str, scopes: Sequence[str], run_id: str, clock: Clock
) -> Grant:
    """What the caller may do in the name of an agent for the next 60 seconds.

    Raises InvalidArgument for a scope that is not passed on, AgentNotFound, ScopesNotHeld.
    """
    scope_rules.check_passed_on(scopes)
    agent = get_agent(connection, agent_id=agent_id)
    _check_held(scopes, agent.scopes, f"agent {agent_id}")
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


def _check_held(wanted: Sequence[str], held: Sequence[str] | frozenset[str], holder: str) -> None:
    missing = scope_rules.missing(wanted, held)
    if missing:
        raise ScopesNotHeld(missing, holder)

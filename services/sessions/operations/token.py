"""Minting, rotating, revoking and exchanging tokens.

An agent's tokens are made and ended under the lock of its row, which comes first: so whoever ends all of them misses
none that is made at the same time. Only the notes of their use, and their pruning, do without.
"""

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.sessions import scopes as scope_rules
from services.sessions import tokens
from services.sessions.errors import TokenInvalid, TokenNotFound, TokenNotRotatable
from services.sessions.models.agent import Agent, Holder
from services.sessions.models.token import Grant, MintedToken, Rotation, Token, TokenKind
from services.sessions.operations.agent import lock_live_agent
from services.sessions.operations.agent_audit import audit, token_told
from services.sessions.operations.holding import check_held
from services.sessions.store import agent as agent_store
from services.sessions.store import token as store

TOKEN_LIFETIME = timedelta(days=90)
ACCESS_LIFETIME = timedelta(seconds=60)
OVERLAP = timedelta(days=1)
"""How long a token goes on after it was rotated, unless somebody says otherwise."""
# Compared with when no token has the key id, so that the answer takes as long as for a wrong secret.
_NO_DIGEST = bytes(32)


def create_token(
    connection: Connection,
    *,
    caller: Caller,
    agent_id: str,
    scopes: Sequence[str],
    lifetime: timedelta,
    clock: Clock,
    request_id: str = "",
) -> MintedToken:
    """A token for an agent with scopes that both it and the caller hold; no scopes means all of the agent's.

    Raises InvalidArgument, AgentNotFound, AgentArchived or ScopesNotHeld.
    """
    scope_rules.check_known(scopes)
    agent = lock_live_agent(connection, agent_id)
    wanted = scopes or agent.scopes
    _check_both_hold(wanted, agent, caller)
    minted = mint_token(
        connection, agent_id=agent_id, scopes=wanted, lifetime=lifetime, created_by=caller.agent_id, clock=clock
    )
    _audit_created(connection, minted.token, caller.agent_id, clock, request_id=request_id)
    return minted


def create_first_token(
    connection: Connection, *, agent_id: str, scopes: Sequence[str], lifetime: timedelta, clock: Clock
) -> MintedToken:
    """A token for an agent that Baton itself needs, before there is anybody who could ask for it."""
    minted = mint_token(connection, agent_id=agent_id, scopes=scopes, lifetime=lifetime, clock=clock)
    _audit_created(connection, minted.token, agent_id, clock, note="bootstrap")
    return minted


def mint_token(
    connection: Connection,
    *,
    agent_id: str,
    scopes: Sequence[str],
    lifetime: timedelta,
    clock: Clock,
    created_by: str | None = None,
    kind: TokenKind = TokenKind.MINTED,
    family_id: str | None = None,
) -> MintedToken:
    """Makes and stores a token. Whether the agent may have these scopes is for the caller to know."""
    text = tokens.new_token()
    key_id = tokens.key_id(text)
    assert key_id is not None
    now = clock.now()
    token = Token(
        id=new_id(),
        key_id=key_id,
        agent_id=agent_id,
        secret_hash=tokens.digest(text),
        scopes=tuple(sorted(set(scopes))),
        created_at=now,
        expires_at=now + lifetime,
        kind=kind,
        family_id=family_id,
        created_by=created_by or agent_id,
    )
    store.insert_token(connection, token)
    return MintedToken(token, text)


def rotate_token(
    connection: Connection,
    *,
    caller: Caller,
    agent_id: str,
    token_id: str,
    overlap: timedelta,
    lifetime: timedelta,
    clock: Clock,
    request_id: str = "",
) -> Rotation:
    """A new token for a minted one, which goes on for the overlap, but not beyond its own end.

    Raises AgentNotFound, AgentArchived, TokenNotFound, TokenNotRotatable or ScopesNotHeld.
    """
    now, agent = clock.now(), lock_live_agent(connection, agent_id)
    token = _found(connection, agent_id, token_id)
    _check_rotatable(token, now)
    _check_both_hold(token.scopes, agent, caller)
    minted = mint_token(
        connection, agent_id=agent_id, scopes=token.scopes, lifetime=lifetime, created_by=caller.agent_id, clock=clock
    )
    ends = min(token.expires_at, now + overlap)
    store.replace(connection, token_id, by=minted.token.id, expires_at=ends)
    audit(
        connection,
        clock,
        action="token.rotate",
        actor=caller.agent_id,
        agent_id=agent_id,
        before={"token_id": token_id, "expires_at": token.expires_at.isoformat()},
        after=token_told(minted.token) | {"previous_expires_at": ends.isoformat()},
        request_id=request_id,
    )
    return Rotation(replace(token, replaced_by=minted.token.id, expires_at=ends), minted)


def revoke_token(
    connection: Connection, *, agent_id: str, token_id: str, actor: str, clock: Clock, request_id: str = ""
) -> Token:
    """The agent's token, revoked now or before; with a refresh token all that came of it. Raises TokenNotFound."""
    agent_store.lock(connection, agent_id=agent_id)
    token = _found(connection, agent_id, token_id)
    if end_token(connection, token, clock):
        audit(
            connection,
            clock,
            action="token.revoke",
            actor=actor,
            agent_id=agent_id,
            before={"token_id": token_id, "kind": token.kind.value},
            request_id=request_id,
        )
    return replace(token, revoked_at=token.revoked_at or clock.now())


def end_token(connection: Connection, token: Token, clock: Clock) -> bool:
    """Ends a token, and with a refresh token all that came of it; says whether anything was not revoked before."""
    if token.kind is TokenKind.REFRESH and token.family_id is not None:
        return store.revoke_family(connection, token.family_id, revoked_at=clock.now()) > 0
    return store.revoke(connection, token.id, revoked_at=clock.now())


def proven(connection: Connection, *, text: str) -> tuple[Token, Holder]:
    """The token that `text` is, live or not, and its agent. Raises TokenInvalid."""
    key_id = tokens.key_id(text)
    if key_id is None:
        raise TokenInvalid
    found = store.find_by_key(connection, key_id=key_id)
    is_proven = hmac.compare_digest(found[0].secret_hash if found else _NO_DIGEST, tokens.digest(text))
    if found is None or not is_proven:
        raise TokenInvalid
    return found


def authenticate(connection: Connection, *, text: str, clock: Clock) -> tuple[Token, Holder]:
    """The live token that `text` is, for calls, and its agent. Raises TokenInvalid."""
    token, agent = proven(connection, text=text)
    if token.kind is TokenKind.REFRESH or not token.is_live(clock.now()) or agent.is_archived:
        raise TokenInvalid
    return token, agent


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


def _audit_created(
    connection: Connection, token: Token, actor: str, clock: Clock, *, note: str = "", request_id: str = ""
) -> None:
    audit(
        connection,
        clock,
        action="token.create",
        actor=actor,
        agent_id=token.agent_id,
        after=token_told(token),
        note=note,
        request_id=request_id,
    )


def _found(connection: Connection, agent_id: str, token_id: str) -> Token:
    token = store.find(connection, agent_id=agent_id, token_id=token_id)
    if token is None:
        raise TokenNotFound(agent_id, token_id)
    return token


def _check_both_hold(scopes: Sequence[str], agent: Agent, caller: Caller) -> None:
    check_held(scopes, agent.scopes, "the agent")
    check_held(scopes, caller.scopes, "the caller")


def _check_rotatable(token: Token, now: datetime) -> None:
    if token.kind is not TokenKind.MINTED:
        raise TokenNotRotatable(token.id, "was not minted, but obtained with a secret")
    if token.replaced_by is not None:
        raise TokenNotRotatable(token.id, f"was rotated before, into {token.replaced_by}")
    if not token.is_live(now):
        raise TokenNotRotatable(token.id, "was revoked or has expired")

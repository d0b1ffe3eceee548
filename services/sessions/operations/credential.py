"""Tokens that agents obtain with a secret of their own."""

import hmac
from datetime import timedelta

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.sessions import scopes as scope_rules
from services.sessions import tokens
from services.sessions.errors import SecretInvalid, TokenInvalid, TokenReused
from services.sessions.models.agent import Holder
from services.sessions.models.token import MintedToken, ObtainedTokens, Token, TokenKind
from services.sessions.operations.agent import lock_live_agent
from services.sessions.operations.agent_audit import audit, token_told
from services.sessions.operations.holding import check_held
from services.sessions.operations.token import end_token, mint_token, proven
from services.sessions.store import agent as agent_store
from services.sessions.store import secret as secret_store
from services.sessions.store import token as token_store

OBTAINED_LIFETIME = timedelta(hours=1)
REFRESH_LIFETIME = timedelta(days=30)
_LEEWAY = timedelta(seconds=10)
"""So long a refresh token that comes twice is taken for a client that has sent it twice."""
_NO_DIGEST = bytes(32)


def create_credentials(
    connection: Connection, agent_id: str, caller: Caller, clock: Clock, *, request_id: str = ""
) -> str:
    """Gives an agent a new secret, answered this once; ends the one before and what was obtained with it.

    Whoever has the secret can do what the agent can: so the caller must hold it, too. Raises AgentNotFound,
    AgentArchived or ScopesNotHeld.
    """
    agent = lock_live_agent(connection, agent_id)
    check_held(agent.scopes, caller.scopes, "the caller")
    secret, now = tokens.new_token(), clock.now()
    secret_store.put_secret(
        connection, agent_id=agent_id, secret_hash=tokens.digest(secret), created_by=caller.agent_id, now=now
    )
    ended = token_store.revoke_all(connection, agent_id, revoked_at=now, obtained_only=True)
    audit(
        connection,
        clock,
        action="agent.create_credentials",
        actor=caller.agent_id,
        agent_id=agent_id,
        after={"tokens_revoked": ended},
        request_id=request_id,
    )
    return secret


def check_secret(connection: Connection, *, agent_id: str, secret: str) -> Holder:
    """The agent whose secret that is. Raises SecretInvalid, always the same and after the same work."""
    found = secret_store.find_secret(connection, agent_id=agent_id)
    is_proven = hmac.compare_digest(found[0] if found else _NO_DIGEST, tokens.digest(secret))
    if found is None or not is_proven or found[1].is_archived:
        raise SecretInvalid
    return found[1]


def obtain_tokens(
    connection: Connection, *, agent_id: str, secret: str, clock: Clock, request_id: str = ""
) -> ObtainedTokens:
    """An access and a refresh token with all that the agent holds. Raises SecretInvalid."""
    agent_store.lock(connection, agent_id=agent_id)
    agent = check_secret(connection, agent_id=agent_id, secret=secret)
    obtained = _mint_pair(connection, agent, agent.scopes, new_id(), clock)
    _audit_pair(connection, "token.obtain", obtained, clock, request_id=request_id)
    return obtained


def refresh_tokens(connection: Connection, *, text: str, clock: Clock, request_id: str = "") -> ObtainedTokens:
    """The next pair for a refresh token, which ends with that.

    Raises TokenInvalid; TokenReused when the token was used before and what came of it must end now.
    """
    # Before anything is locked, which is a write on PostgreSQL: what is refused costs none.
    _check_refreshable(connection, *proven(connection, text=text), clock)
    token, agent = _locked(connection, text)
    family_id = _check_refreshable(connection, token, agent, clock)
    obtained = _mint_pair(connection, agent, token.scopes, family_id, clock)
    token_store.use_up(connection, token.id, by=obtained.refresh.token.id, now=clock.now())
    _audit_pair(connection, "token.refresh", obtained, clock, request_id=request_id)
    return obtained


def end_reused(connection: Connection, *, family_id: str, agent_id: str, clock: Clock) -> None:
    """Ends all that came of a refresh token that is in two hands."""
    agent_store.lock(connection, agent_id=agent_id)
    ended = token_store.revoke_family(connection, family_id, revoked_at=clock.now())
    if ended:
        audit(
            connection,
            clock,
            action="token.revoke_reused",
            actor=agent_id,
            agent_id=agent_id,
            after={"tokens_revoked": ended},
            note="a refresh token came again after it was used",
        )


def surrender_token(connection: Connection, *, text: str, clock: Clock, request_id: str = "") -> Token:
    """Ends the token that `text` is, and with a refresh token all that came of it. Raises TokenInvalid."""
    token, agent = _locked(connection, text)
    if end_token(connection, token, clock):
        audit(
            connection,
            clock,
            action="token.surrender",
            actor=agent.id,
            agent_id=agent.id,
            before={"token_id": token.id, "kind": token.kind.value},
            request_id=request_id,
        )
    return token


def _locked(connection: Connection, text: str) -> tuple[Token, Holder]:
    """The token that `text` is, and its agent, as they stay until this transaction ends. Raises TokenInvalid."""
    token, _ = proven(connection, text=text)
    agent_store.lock(connection, agent_id=token.agent_id)
    return proven(connection, text=text)


def _check_refreshable(connection: Connection, token: Token, agent: Holder, clock: Clock) -> str:
    """The family of a refresh token that is good for the next pair. Raises TokenInvalid or TokenReused."""
    now = clock.now()
    if token.kind is not TokenKind.REFRESH or token.family_id is None or agent.is_archived:
        raise TokenInvalid
    if token.revoked_at is not None and token.replaced_by is not None:
        is_late = now - token.revoked_at > _LEEWAY
        # Said once: a token that is sent again and again must not be written about each time.
        if is_late and token_store.is_family_live(connection, token.family_id, now=now):
            raise TokenReused(token.family_id)
    if not token.is_live(now) or scope_rules.missing(token.scopes, agent.scopes):
        raise TokenInvalid
    return token.family_id


def _mint_pair(
    connection: Connection, agent: Holder, scopes: tuple[str, ...], family_id: str, clock: Clock
) -> ObtainedTokens:
    def mint(kind: TokenKind, lifetime: timedelta) -> MintedToken:
        return mint_token(
            connection, agent_id=agent.id, scopes=scopes, lifetime=lifetime, clock=clock, kind=kind, family_id=family_id
        )

    return ObtainedTokens(
        access=mint(TokenKind.ACCESS, OBTAINED_LIFETIME), refresh=mint(TokenKind.REFRESH, REFRESH_LIFETIME)
    )


def _audit_pair(
    connection: Connection, action: str, obtained: ObtainedTokens, clock: Clock, *, request_id: str
) -> None:
    agent_id = obtained.access.token.agent_id
    audit(
        connection,
        clock,
        action=action,
        actor=agent_id,
        agent_id=agent_id,
        after=token_told(obtained.access.token) | {"refresh_token_id": obtained.refresh.token.id},
        request_id=request_id,
    )

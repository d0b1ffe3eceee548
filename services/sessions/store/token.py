"""Tokens, as rows."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, or_, select, update

from services.sessions.models.agent import Holder
from services.sessions.models.token import Token, TokenFilter, TokenKind
from services.sessions.store.agent import HOLDER, holder_of
from services.sessions.store.tables import agents, tokens

_USED_AGAIN = timedelta(minutes=1)


def insert_token(connection: Connection, token: Token) -> None:
    connection.execute(insert(tokens).values(asdict(token)))


def find(connection: Connection, *, agent_id: str, token_id: str) -> Token | None:
    """The token, if it is that agent's."""
    wanted = (tokens.c.id == token_id, tokens.c.agent_id == agent_id)
    return _token(connection.execute(select(tokens).where(*wanted)).one_or_none())


def find_by_id(connection: Connection, *, token_id: str) -> Token | None:
    """The token, whoever's it is."""
    return _token(connection.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none())


def find_by_key(connection: Connection, *, key_id: str) -> tuple[Token, Holder] | None:
    """The token with this key id, and who holds it: in one query, so that it takes as long for every token."""
    query = (
        select(*(column.label(f"token_{column.name}") for column in tokens.c), *HOLDER)
        .join_from(tokens, agents, tokens.c.agent_id == agents.c.id)
        .where(tokens.c.key_id == key_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    fields = row._asdict()
    own = {name.removeprefix("token_"): fields.pop(name) for name in list(fields) if name.startswith("token_")}
    return _token_of(own), holder_of(fields)


def list_tokens(
    connection: Connection, agent_id: str, wanted: TokenFilter, *, limit: int, before_id: str | None = None
) -> list[Token]:
    """Up to `limit` tokens of an agent, newest first, with smaller ids than `before_id`."""
    query = select(tokens).where(tokens.c.agent_id == agent_id).order_by(tokens.c.id.desc()).limit(limit)
    if wanted.kind is not None:
        query = query.where(tokens.c.kind == wanted.kind)
    if wanted.live_at is not None:
        query = query.where(tokens.c.revoked_at.is_(None), tokens.c.expires_at > wanted.live_at)
    if before_id is not None:
        query = query.where(tokens.c.id < before_id)
    return [_token_of(row._asdict()) for row in connection.execute(query)]


def replace(connection: Connection, token_id: str, *, by: str, expires_at: datetime) -> None:
    """Notes what a token was rotated into, and when it ends."""
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(replaced_by=by, expires_at=expires_at))


def use_up(connection: Connection, token_id: str, *, by: str, now: datetime) -> None:
    """Ends a refresh token for the one that it was good for."""
    values = {"revoked_at": now, "replaced_by": by, "last_used_at": now}
    connection.execute(update(tokens).where(tokens.c.id == token_id).values(values))


def revoke(connection: Connection, token_id: str, *, revoked_at: datetime) -> bool:
    """Ends a token; False when it was revoked before."""
    live = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
    return connection.execute(live.values(revoked_at=revoked_at)).rowcount > 0


def revoke_family(connection: Connection, family_id: str, *, revoked_at: datetime) -> int:
    """Ends what came of one use of a secret; answers how many tokens were not revoked yet."""
    live = update(tokens).where(tokens.c.family_id == family_id, tokens.c.revoked_at.is_(None))
    return connection.execute(live.values(revoked_at=revoked_at)).rowcount


def is_family_live(connection: Connection, family_id: str, *, now: datetime) -> bool:
    """Whether anything that came of one use of a secret still opens something."""
    live = (tokens.c.family_id == family_id, tokens.c.revoked_at.is_(None), tokens.c.expires_at > now)
    return bool(connection.execute(select(exists().where(*live))).scalar_one())


def revoke_all(connection: Connection, agent_id: str, *, revoked_at: datetime, obtained_only: bool = False) -> int:
    """Ends all tokens of an agent, or those that it has obtained itself; answers how many that were."""
    live = update(tokens).where(tokens.c.agent_id == agent_id, tokens.c.revoked_at.is_(None))
    if obtained_only:
        live = live.where(tokens.c.kind != TokenKind.MINTED)
    return connection.execute(live.values(revoked_at=revoked_at)).rowcount


def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Notes when tokens were last used, of each no more than once a minute, whoever else notes it."""
    earlier = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at <= bindparam("before"))
    statement = update(tokens).where(tokens.c.id == bindparam("token_id"), earlier)
    statement = statement.values(last_used_at=bindparam("used_at"))
    # In one order, so that two who note the same tokens do not wait for each other.
    rows = [{"token_id": one, "used_at": at, "before": at - _USED_AGAIN} for one, at in sorted(uses.items())]
    if rows:
        connection.execute(statement, rows)


def delete_ended(connection: Connection, *, before: datetime, limit: int) -> int:
    """Deletes access and refresh tokens that ended before then, up to `limit`; answers how many."""
    ended = select(tokens.c.id).where(tokens.c.family_id.is_not(None), tokens.c.expires_at < before).limit(limit)
    return connection.execute(delete(tokens).where(tokens.c.id.in_(ended))).rowcount


def _token(row: Row[Any] | None) -> Token | None:
    return None if row is None else _token_of(row._asdict())


def _token_of(fields: dict[str, Any]) -> Token:
    return Token(**{**fields, "scopes": tuple(fields["scopes"]), "kind": TokenKind(fields["kind"])})

"""Rows of `tokens`."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from services.sessions.models import Token
from services.sessions.store.tables import tokens


def insert_token(connection: Connection, token: Token) -> None:
    connection.execute(insert(tokens).values(asdict(token)))


def find(connection: Connection, *, agent_id: str, token_id: str) -> Token | None:
    """The token, if it is that agent's."""
    wanted = (tokens.c.id == token_id, tokens.c.agent_id == agent_id)
    return _token(connection.execute(select(tokens).where(*wanted)).one_or_none())


def find_by_key(connection: Connection, *, key_id: str) -> Token | None:
    return _token(connection.execute(select(tokens).where(tokens.c.key_id == key_id)).one_or_none())


def revoke(connection: Connection, *, agent_id: str, token_id: str, revoked_at: datetime) -> None:
    """Marks the token as revoked, if it is that agent's and not revoked yet."""
    wanted = (tokens.c.id == token_id, tokens.c.agent_id == agent_id, tokens.c.revoked_at.is_(None))
    connection.execute(update(tokens).where(*wanted).values(revoked_at=revoked_at))


def _token(row: Row[Any] | None) -> Token | None:
    if row is None:
        return None
    fields = row._asdict()
    return Token(**{**fields, "scopes": tuple(fields["scopes"])})

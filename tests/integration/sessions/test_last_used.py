"""When a token was last used, noted without a write for each use."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import pytest
from baton.sessions.v1.agent_service_pb2 import ListTokensRequest
from sqlalchemy import create_engine, event, select, text

from services.chassis.database import Database
from services.chassis.errors import Unavailable
from services.chassis.timestamps import from_timestamp
from services.sessions.last_used import LastUsed
from services.sessions.service import SCHEMA
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


async def last_used(sessions: Sessions, agent_id: str) -> list[datetime | None]:
    """Of each token of an agent, oldest first."""
    answer = await sessions.caller(["admin"]).ListTokens(ListTokensRequest(agent_id=agent_id))
    return [
        from_timestamp(token.last_used_at) if token.HasField("last_used_at") else None
        for token in reversed(answer.items)
    ]


async def test_a_use_is_noted_and_written_down_later(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token, _ = await sessions.minted(agent.id), await sessions.minted(agent.id)
    await sessions.exchanged(token.token)
    assert await last_used(sessions, agent.id) == [None, None]
    used_at = sessions.clock.now()
    sessions.clock.advance(seconds=40)
    assert await sessions.service.last_used.write() == 60
    assert await last_used(sessions, agent.id) == [used_at, None]


async def test_many_uses_are_one_write_and_none_is_none(sessions: Sessions) -> None:
    agent = await sessions.agent()
    tokens = [await sessions.minted(agent.id) for _ in range(3)]
    for _ in range(20):
        for token in tokens:
            await sessions.exchanged(token.token)
    written: list[str] = []
    engine = sessions.database._writer
    event.listen(engine, "before_cursor_execute", lambda _, __, statement, *___: written.append(statement))
    await sessions.service.last_used.write()
    await sessions.service.last_used.write()
    assert len([statement for statement in written if statement.startswith("UPDATE tokens")]) == 1


async def test_two_processes_write_a_use_at_most_once_a_minute(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    await sessions.exchanged(token.token)
    first = sessions.clock.now()
    await sessions.service.last_used.write()
    other = LastUsed(sessions.database)
    sessions.clock.advance(seconds=59)
    other.note(token.id, sessions.clock.now())
    await other.write()
    assert await last_used(sessions, agent.id) == [first]
    sessions.clock.advance(seconds=1)
    other.note(token.id, sessions.clock.now())
    await other.write()
    assert await last_used(sessions, agent.id) == [sessions.clock.now()]


@contextmanager
def without_tokens(database_url: str, own_url: str) -> Iterator[None]:
    """A time in which the table of tokens cannot be found."""
    is_postgres = database_url.startswith("postgresql")
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:") if is_postgres else own_url)
    schema = "sessions." if is_postgres else ""

    def rename(old: str, new: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {schema}{old} RENAME TO {new}"))

    rename("tokens", "hidden")
    yield
    rename("hidden", "tokens")
    engine.dispose()


async def test_what_could_not_be_written_is_written_the_next_time(sessions: Sessions, database_url: str) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    await sessions.exchanged(token.token)
    with without_tokens(database_url, sessions.settings.database_url), pytest.raises(Unavailable):
        await sessions.service.last_used.write()
    await sessions.service.last_used.write()
    assert await last_used(sessions, agent.id) == [sessions.clock.now()]


async def test_a_service_that_stops_writes_down_what_it_knows(sessions: Sessions) -> None:
    agent = await sessions.agent()
    token = await sessions.minted(agent.id)
    await sessions.exchanged(token.token)
    await sessions.service.close()
    with closing(Database(sessions.settings.database_url, schema=SCHEMA, pool_size=1)) as database:
        query = select(tables.tokens.c.last_used_at)
        assert database.run(lambda connection, clock: connection.execute(query).scalar_one()) == sessions.clock.now()

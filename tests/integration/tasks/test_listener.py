"""Hints between replicas, over PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest

from services.chassis import loops
from services.chassis.errors import Unavailable
from services.chassis.listener import Listener
from services.tasks.service import SCHEMA, new_listener
from tests.integration.tasks.work import PROMPTLY
from tests.support import databases
from tests.support.waiting import await_until

LONG = 30.0


@pytest.fixture
def url(postgres_database: str) -> str:
    return databases.context_url(postgres_database, SCHEMA)


@pytest.fixture
async def replicas(url: str, postgres_database: str) -> AsyncIterator[tuple[Listener, Listener]]:
    """Two replicas that listen."""
    here, there = new_listener(url), new_listener(url)
    async with running(here), running(there):
        await await_until(lambda: len(listening(postgres_database)) == 2)
        yield here, there


@asynccontextmanager
async def running(listener: Listener) -> AsyncIterator[None]:
    loop = asyncio.create_task(loops.forever("listener", listener.step, timeout=60))
    try:
        yield
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop


def listening(database_url: str) -> list[int]:
    """The processes of the server that have told it what they listen to."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'baton-tasks-listener' AND query <> '' "
        "AND datname = current_database()"
    )
    with psycopg.connect(database_url) as connection:
        return [pid for (pid,) in connection.execute(query)]


async def waiting(listener: Listener, role: str = "") -> "asyncio.Task[None]":
    """Somebody who waits for a hint."""
    task = asyncio.create_task(listener.wakeup.wait(listener.wakeup.ticket(role), LONG))
    await asyncio.sleep(0)
    return task


async def test_a_hint_reaches_who_waits_at_another_replica(replicas: tuple[Listener, Listener]) -> None:
    here, there = replicas
    for _ in range(3):
        elsewhere = await waiting(there)
        here.wakeup.notify("")
        await asyncio.wait_for(elsewhere, PROMPTLY)
        back = await waiting(here)
        there.wakeup.notify()
        await asyncio.wait_for(back, PROMPTLY)


async def test_a_hint_wakes_its_role_and_nobody_else(replicas: tuple[Listener, Listener]) -> None:
    here, there = replicas
    review, build = await waiting(there, "review"), await waiting(there, "build, 'a\\b' ü")
    here.wakeup.notify("review")
    await asyncio.wait_for(review, PROMPTLY)
    assert not build.done()
    here.wakeup.notify("build, 'a\\b' ü")
    await asyncio.wait_for(build, PROMPTLY)


async def test_a_hint_for_very_many_roles_reaches_all_of_them(replicas: tuple[Listener, Listener]) -> None:
    here, there = replicas
    roles = ["ü" * 40 + str(number) for number in range(200)]
    elsewhere = [await waiting(there, role) for role in roles]
    here.wakeup.notify(*roles)
    await asyncio.wait_for(asyncio.gather(*elsewhere), PROMPTLY)


async def test_a_lost_connection_is_made_anew(replicas: tuple[Listener, Listener], postgres_database: str) -> None:
    here, there = replicas
    before = listening(postgres_database)
    with psycopg.connect(postgres_database) as connection:
        for pid in before:
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    await await_until(
        lambda: len(listening(postgres_database)) == 2 and not set(listening(postgres_database)) & set(before)
    )
    elsewhere = await waiting(there)
    here.wakeup.notify("")
    await asyncio.wait_for(elsewhere, PROMPTLY)


async def test_without_a_server_hints_are_heard_here_all_the_same() -> None:
    listener = new_listener("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable):
        await listener.step()
    here = await waiting(listener)
    listener.wakeup.notify("")
    await asyncio.wait_for(here, PROMPTLY)

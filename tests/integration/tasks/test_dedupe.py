"""Of several that race for a dedupe key, one takes it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.service import SCHEMA
from services.tasks.store import dedupe
from tests.support.clock import ManualClock

OWNER, WINDOW = new_id(), timedelta(minutes=1)


@pytest.fixture
async def database(migrated_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    database = Database(migrated_url, schema=SCHEMA, pool_size=8, clock=clock)
    yield database
    database.close()


async def take(database: Database, run_id: str, *, owner: str = OWNER, window: timedelta = WINDOW) -> str | None:
    return await database.transact(
        lambda connection, clock: dedupe.take(connection, owner, "key", run_id, window, clock.now())
    )


async def race(database: Database) -> str:
    """Eight runs take one key at once; answers the one that did."""
    run_ids = [new_id() for _ in range(8)]
    answers = await asyncio.gather(*(take(database, run_id) for run_id in run_ids))
    (winner,) = [run_id for run_id, answer in zip(run_ids, answers, strict=True) if answer is None]
    assert [answer for answer in answers if answer is not None] == [winner] * 7
    return winner


async def test_racing_runs_take_a_key_once_in_a_window(database: Database, clock: ManualClock) -> None:
    for _ in range(5):
        winner = await race(database)
        clock.advance(seconds=59.999)
        assert await take(database, new_id()) == winner
        clock.advance(seconds=0.001)


async def test_a_key_is_its_owners_alone(database: Database) -> None:
    assert await take(database, new_id()) is None
    assert await take(database, new_id(), owner=new_id()) is None


async def test_without_a_window_nothing_is_held_back(database: Database) -> None:
    assert await take(database, new_id()) is None
    assert await take(database, new_id(), window=timedelta()) is None

"""Of several that race for a dedupe key, one takes it; and one that holds nothing back is forgotten."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
from baton.tasks.v1.run_service_pb2 import CreateRunsRequest, NewRun
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest
from buf.validate import validate_pb2
from sqlalchemy import Connection, select

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.wakeup import Wakeup
from services.tasks import background
from services.tasks.service import SCHEMA
from services.tasks.store import dedupe, tables
from tests.integration.tasks.running import Tasks
from tests.support.clock import ManualClock
from tests.support.waiting import await_until

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


async def keys(database: Database) -> set[str]:
    query = select(tables.dedupe_keys.c.dedupe_key)
    return set(await database.read(lambda connection, clock: connection.execute(query).scalars().all()))


async def test_a_key_is_forgotten_when_no_window_reaches_back_to_its_run(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_KEYS_BATCH", 2)
    reaper = background.Reaper(database, Wakeup())
    await database.transact(lambda connection, clock: [take_one(connection, clock, f"old {n}") for n in range(5)])
    clock.advance(days=1)
    await database.transact(lambda connection, clock: take_one(connection, clock, "young"))
    clock.advance(days=363, hours=23.9)
    await reaper.step()
    assert len(await keys(database)) == 6
    clock.advance(hours=0.1)
    # Whoever has just looked looks again in an hour.
    await reaper.step()
    assert len(await keys(database)) == 6
    reaper = background.Reaper(database, Wakeup())
    for left in (4, 2, 1, 1):
        await reaper.step()
        assert len(await keys(database)) == left
    assert await keys(database) == {"young"}


def take_one(connection: Connection, clock: Clock, key: str) -> None:
    assert dedupe.take(connection, OWNER, key, new_id(), WINDOW, clock.now()) is None


def test_no_task_can_have_a_longer_window() -> None:
    window = CreateTaskRequest.DESCRIPTOR.fields_by_name["dedupe_window_seconds"]
    rules = window.GetOptions().Extensions[validate_pb2.field]
    assert rules.int32.lte == dedupe.MAX_WINDOW.total_seconds()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_batch_takes_its_keys_in_one_order(tasks: Tasks, postgres_database: str) -> None:
    """Or two that name their tasks in opposite orders wait for each other."""
    first, last = [await tasks.create(dedupe_key=key, dedupe_window_seconds=60) for key in ("a", "b")]
    runs = [NewRun(task_id=task.id) for task in (last, first)]
    take = "INSERT INTO tasks.dedupe_keys VALUES (%s, %s, gen_random_uuid(), now())"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'"
    with psycopg.connect(postgres_database) as other, psycopg.connect(postgres_database, autocommit=True) as third:
        other.execute(take, [first.created_by, "b"])
        creating = asyncio.ensure_future(tasks.runs.CreateRuns(CreateRunsRequest(runs=runs)))
        await await_until(lambda: third.execute(waits).fetchone() == (1,))
        # The one that comes first is taken already.
        third.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            third.execute(take, [first.created_by, "a"])
        other.rollback()
    # And the answers are in the order of the request.
    created = (await creating).runs
    assert [(await tasks.run(run.run_id)).task_id for run in created] == [last.id, first.id]

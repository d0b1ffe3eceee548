"""The months that PostgreSQL keeps the history in, as the service's own login makes and drops them."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import Connection, exists, select, text

from services.chassis.clock import Clock
from services.chassis.ids import id_at
from services.tasks.housekeeping import MonthMaker
from services.tasks.operations import retention
from services.tasks.pruning import Pruner
from services.tasks.store import months, tables
from tests.integration.tasks.past import add_past_runs, add_past_steps, failed_run, listed, past_run
from tests.integration.tasks.running import Tasks
from tests.support.waiting import await_until

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
_NOW = datetime.now(UTC)


async def partitions(tasks: Tasks) -> list[str]:
    """The partitions in their order."""
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run_history'::regclass")
    found = await tasks.database.read(lambda connection, clock: connection.execute(query).scalars().all())
    return sorted(found, key=lambda name: {"before": "0", "after": "9"}.get(name.rsplit("_")[-1], name[12:]))


async def make(tasks: Tasks, ahead: int) -> int:
    return await tasks.database.transact(lambda connection, clock: months.make_months(connection, ahead))


def month(ahead: int) -> datetime:
    """The middle of a month."""
    year, index = divmod(_NOW.year * 12 + _NOW.month - 1 + ahead, 12)
    return datetime(year, index + 1, 15, tzinfo=UTC)


async def where(tasks: Tasks, run_id: str) -> str:
    query = text("SELECT tableoid::regclass::text FROM run_history WHERE id = CAST(:id AS uuid)").bindparams(id=run_id)
    return await tasks.database.read(lambda connection, clock: connection.execute(query).scalar_one())


async def test_there_are_months_up_to_two_ahead_and_more_can_be_made(tasks: Tasks) -> None:
    names = await partitions(tasks)
    assert (names[0], names[-1]) == ("run_history_before", "run_history_after")
    assert f"run_history_{month(0):%Y_%m}" in names
    assert f"run_history_{month(2):%Y_%m}" in names
    await MonthMaker(tasks.database).step()
    assert await partitions(tasks) == names
    far = [id_at(month(number)) for number in (4, 30)]
    long_ago = id_at(datetime(2011, 5, 5, tzinfo=UTC))
    await add_past_runs(tasks, [failed_run("told ahead", id=run_id) for run_id in (*far, long_ago)])
    assert await where(tasks, long_ago) == "run_history_before"
    missing = 4 - max(number for number in range(3, 30) if f"run_history_{month(number - 1):%Y_%m}" in names) + 1
    assert await make(tasks, 4) == max(missing, 0)
    # What was there ahead of its month has moved into it, and is found there.
    assert await where(tasks, far[0]) == f"run_history_{month(4):%Y_%m}"
    assert await where(tasks, far[1]) == "run_history_after"
    assert await listed(tasks, text="told ahead") == [far[1], far[0], long_ago]


async def test_replicas_make_a_month_once(tasks: Tasks) -> None:
    before = len(await partitions(tasks))
    made = await asyncio.gather(*(make(tasks, 6) for _ in range(4)))
    assert len(await partitions(tasks)) == before + sum(made)
    assert sorted(made)[:3] == [0, 0, 0]


async def test_no_more_months_are_made_than_two_years_ahead(tasks: Tasks) -> None:
    await make(tasks, 10_000)
    assert f"run_history_{month(24):%Y_%m}" in await partitions(tasks)
    assert f"run_history_{month(25):%Y_%m}" not in await partitions(tasks)


async def add_past_month(tasks: Tasks, url: str) -> datetime:
    """Makes the month before the first one, as it would be there had the service been at work; its middle."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = tasks")
        (first,) = connection.execute("SELECT min(month) FROM run_history_months()").fetchone() or (None,)
        past = (first - timedelta(days=1)).replace(day=1)
        bounds = connection.execute("SELECT run_history_bound(%s), run_history_bound(%s)", [past, first]).fetchone()
        assert bounds is not None
        connection.execute("ALTER TABLE run_history DETACH PARTITION run_history_before")
        connection.execute(
            f"CREATE TABLE run_history_{past:%Y_%m} PARTITION OF run_history "
            f"FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')".encode()
        )
        connection.execute(
            "ALTER TABLE run_history ATTACH PARTITION run_history_before "
            f"FOR VALUES FROM (MINVALUE) TO ('{bounds[0]}')".encode()
        )
        grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tasks TO {login}"
        connection.execute(grants.format(login=connection.info.dbname + "_tasks").encode())
    return past.replace(day=15, tzinfo=UTC)


async def test_a_month_whose_runs_are_all_old_is_dropped(tasks: Tasks, postgres_database: str) -> None:
    instant = await add_past_month(tasks, postgres_database)
    name = f"run_history_{instant:%Y_%m}"
    old = await add_past_runs(tasks, [past_run(id=id_at(instant), finished_at=instant) for _ in range(3)])
    assert await where(tasks, old[0]) == name
    cutoff = (instant.replace(day=1) + timedelta(days=32)).replace(day=1)
    # Not while a run of that month ended later.
    (late,) = await add_past_runs(tasks, [past_run(id=id_at(instant), finished_at=cutoff + timedelta(days=1))])
    assert (await Pruner(tasks.database).prune(cutoff)).runs == 3
    assert name in await partitions(tasks)
    assert await listed(tasks) == [late]

    pruned = await Pruner(tasks.database).prune(cutoff + timedelta(days=2))
    assert (pruned.runs, pruned.complete) == (1, True)
    assert name not in await partitions(tasks)
    # What is reported of that time later still finds a place.
    (again,) = await add_past_runs(tasks, [past_run(id=id_at(instant))])
    assert await where(tasks, again) == "run_history_before"


async def test_steps_go_with_the_month_of_their_run_though_it_ended_in_the_next(
    tasks: Tasks, postgres_database: str
) -> None:
    instant = await add_past_month(tasks, postgres_database)
    next_month = (instant.replace(day=1) + timedelta(days=32)).replace(day=1)
    (run_id,) = await add_past_runs(tasks, [past_run(id=id_at(instant), finished_at=next_month + timedelta(hours=1))])
    await add_past_steps(tasks, [run_id], 1)
    pruned = await Pruner(tasks.database).prune(next_month + timedelta(days=2))
    assert (pruned.runs, pruned.steps) == (1, 1)
    assert await tasks.count(tables.run_steps) == 0


async def without_steps(tasks: Tasks) -> set[str]:
    """The finished runs that have no steps."""
    h, s = tables.run_history.c, tables.run_steps.c
    query = select(h.id).where(~exists().where(s.run_id == h.id))
    return set(await tasks.database.read(lambda connection, clock: connection.execute(query).scalars().all()))


async def test_a_month_that_is_not_wholly_deleted_leaves_no_run_without_its_steps(
    tasks: Tasks, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 1)
    instant = await add_past_month(tasks, postgres_database)
    old = await add_past_runs(tasks, [past_run(id=id_at(instant), finished_at=instant) for _ in range(3)])
    live = id_at(instant)
    await tasks.queue_runs((await tasks.create()).id, 1, id=live)
    await add_past_steps(tasks, [*old, live], 2)
    cutoff = instant + timedelta(days=62)
    with psycopg.connect(postgres_database) as somebody:
        # The last of them cannot be deleted yet, and then the service is stopped.
        somebody.execute("SELECT FROM tasks.run_steps WHERE run_id = %s FOR UPDATE", [max(old)])
        pruning = asyncio.create_task(Pruner(tasks.database).prune(cutoff))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'"
        await await_until(lambda: postgres_count(postgres_database, waits))
        pruning.cancel()
        assert await without_steps(tasks) == set()
        somebody.rollback()
    # The next one deletes what is left; a run that is not over keeps its own.
    await await_until(lambda: not postgres_count(postgres_database, waits))
    pruned = await Pruner(tasks.database).prune(cutoff)
    assert pruned.complete
    assert await tasks.count(tables.run_history) == 0
    assert await tasks.count(tables.run_steps) == 2


def postgres_count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        (count,) = connection.execute(query.encode()).fetchone() or (0,)
    return int(count)


async def test_the_service_cannot_change_a_table_itself(tasks: Tasks) -> None:
    def drop(connection: Connection, clock: Clock) -> None:
        connection.execute(text("DROP TABLE run_history_after"))

    with pytest.raises(Exception, match="must be owner"):
        await tasks.database.transact(drop)
    assert await tasks.count(tables.run_history) == 0

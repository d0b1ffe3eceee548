"""Several schedulers at once, each a process that can be killed; and very many tasks."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.background import Scheduler
from services.tasks.models.task import Misfire
from services.tasks.service import SCHEMA
from services.tasks.store import tables
from tests.integration.tasks.schedules import SECOND, add_tasks, check_every_second, scheduler_process
from tests.support.waiting import await_until

TASKS_AT_ONCE = 10_000
# What is aimed at is 5 s; machines that run tests have other things to do.
AT_MOST_SECONDS = 25.0


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    opened = Database(migrated_url, schema=SCHEMA, pool_size=3)
    yield opened
    opened.close()


def this_second() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def judged_until(database: Database, instant: datetime) -> None:
    """Waits until every task has been judged up to an instant."""
    earliest = select(func.min(tables.tasks.c.next_scheduled_for))

    async def have_passed() -> bool:
        return await database.read(lambda connection, clock: connection.execute(earliest).scalar_one()) > instant

    await await_until(have_passed)


async def test_racing_processes_of_which_one_is_killed_give_each_time_one_outcome_and_one_run(
    database: Database, migrated_url: str
) -> None:
    begin = this_second() - timedelta(seconds=150)

    def add(connection: object, clock: object) -> None:
        for misfire in Misfire:
            add_tasks(connection, 10, "* * * * * *", begin, misfire=misfire)  # type: ignore[arg-type]

    await database.transact(add)
    with ExitStack() as running:
        processes = [running.enter_context(scheduler_process(migrated_url)) for _ in range(2)]
        await judged_until(database, begin)
        await judged_until(database, this_second() + SECOND)
        # In the middle of whatever it does.
        processes[0].kill()
        running.enter_context(scheduler_process(migrated_url))
        await judged_until(database, this_second() + 3 * SECOND)
    assert await database.read(check_every_second) > 0


async def test_schedulers_in_threads_of_one_process_do_not_fire_twice(database: Database, migrated_url: str) -> None:
    begin = this_second() - timedelta(seconds=30)
    others = [Database(migrated_url, schema=SCHEMA, pool_size=2) for _ in range(3)]
    await database.transact(lambda connection, clock: add_tasks(connection, 30, "* * * * * *", begin))
    for _ in range(3):
        until = this_second()
        await asyncio.gather(*(Scheduler(other, Wakeup()).step() for other in others * 2))
        await judged_until(database, until - SECOND)
    for other in others:
        other.close()
    assert await database.read(check_every_second) >= 30


async def test_ten_thousand_tasks_that_are_due_in_the_same_second_fire_within_seconds(database: Database) -> None:
    due = this_second() - SECOND
    await database.transact(lambda connection, clock: add_tasks(connection, TASKS_AT_ONCE, "0 9 * * *", due))
    scheduler = Scheduler(database, Wakeup())
    began = time.monotonic()
    while await scheduler.step() == 0.0:
        pass
    assert time.monotonic() - began < AT_MOST_SECONDS
    for table in (tables.runs, tables.occurrences):
        count = select(func.count(table.c.task_id.distinct()), func.count()).select_from(table)
        found = await database.read(lambda connection, clock, count=count: connection.execute(count).one())  # type: ignore[misc]
        assert tuple(found) == (TASKS_AT_ONCE, TASKS_AT_ONCE)

"""The hot queries use the indexes that were made for them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.work_service_pb2 import RunReport
from sqlalchemy import Connection, event, insert, select

from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.tasks.models.run import RunReport as Report
from services.tasks.models.run import RunStatus, Succeeded
from services.tasks.operations import work
from services.tasks.store import lease, line, queue, schedule, tables
from services.tasks.store import task as store
from services.tasks.store.task import TaskFilters
from tests.integration.tasks.lines import OWNER, new_run
from tests.integration.tasks.running import Tasks


@contextmanager
def statements(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def record(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(connection, "before_cursor_execute", record)


async def plan(tasks: Tasks, work: Callable[[Connection, Clock], Any], having: str = "", prefix: str = "") -> str:
    """How the database goes about the first statement of `work` that has some words in it."""

    def explained(connection: Connection, clock: Clock) -> str:
        with statements(connection) as sent:
            work(connection, clock)
        statement, parameters = next(item for item in sent if having in item[0])
        explain = prefix or ("EXPLAIN" if tasks.database.is_postgres else "EXPLAIN QUERY PLAN")
        rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)

    return await tasks.database.transact(explained)


@pytest.fixture
async def busy(tasks: Tasks) -> Tasks:
    """A service with hundreds of tasks that fire some day, and as many runs: waiting, held and ended."""
    task = await tasks.create(schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="0 0 1 1 *")
    await tasks.queue_runs(task.id, 300)
    await tasks.lease(limit=100)
    ended = await tasks.lease(limit=100)
    await tasks.report(*(RunReport(lease=run.lease, succeeded={}) for run in ended))

    def add(connection: Connection, clock: Clock) -> None:
        row = connection.execute(select(tables.tasks)).one()._asdict()
        connection.execute(insert(tables.tasks), [row | {"id": new_id()} for _ in range(300)])

    await tasks.database.transact(add)
    return tasks


@pytest.fixture
async def backlog(tasks: Tasks) -> Tasks:
    """A queue with 20 000 runs that are due some other day, 3 000 in one line, and a few that are due."""
    now = tasks.clock.now()
    later = [new_run(now + timedelta(minutes=5 + n), priority=n % 9 + 1, created_by=OWNER) for n in range(20_000)]
    line = [new_run(now, concurrency_key="one", priority=n % 9 + 1) for n in range(3000)]
    due = [new_run(now, concurrency_key=f"key {n}" if n % 2 else "", priority=n % 9 + 1) for n in range(50)]

    def add(connection: Connection, clock: Clock) -> None:
        for runs in (later, line, due):
            queue.add_runs(connection, runs, now)

    await tasks.database.transact(add)
    return tasks


ANALYZE = "EXPLAIN (ANALYZE, TIMING OFF)"


def claim(connection: Connection, clock: Clock) -> Any:
    return work.lease_runs(connection, worker_id=new_id(), agent_id=new_id(), role="", limit=10, clock=clock)


async def test_a_claim_reads_a_range_of_its_index_for_each_priority(backlog: Tasks) -> None:
    found = await plan(backlog, claim, having="foremost")
    # PostgreSQL looks once to count, and once to lock.
    ranges = [line for line in found.splitlines() if "ix_runs_claim" in line]
    assert "Bitmap" not in found
    assert len(ranges) == (18 if backlog.database.is_postgres else 9)
    assert_no_table_is_read_whole(found)
    # Only what was found is brought into one order: nothing is sorted to find it.
    assert len(re.findall(r"Sort Key|TEMP B-TREE", found)) == 1


async def test_a_claim_touches_what_it_takes_and_little_more(backlog: Tasks) -> None:
    if not backlog.database.is_postgres:
        pytest.skip("SQLite does not say what it touches")
    found = await plan(backlog, claim, having="foremost", prefix=ANALYZE)
    rows = [int(number) for number in re.findall(r"ix_runs_claim.*actual rows=(\d+)", found)]
    assert rows
    assert max(rows) <= 10


@pytest.fixture
async def many_lines(tasks: Tasks) -> Tasks:
    """A queue with a run of each of 10 000 keys, the first of which has 3 000 more: all of them are due."""
    now = tasks.clock.now()
    ones = [new_run(now, concurrency_key=f"key {n}", priority=n % 9 + 1) for n in range(10_000)]
    more = [new_run(now + timedelta(seconds=1), concurrency_key="key 0", priority=n % 9 + 1) for n in range(3000)]

    def add(connection: Connection, clock: Clock) -> None:
        for runs in (ones, more):
            queue.add_runs(connection, runs, now)

    await tasks.database.transact(add)
    tasks.clock.advance(seconds=2)
    return tasks


async def test_a_claim_reads_few_rows_beside_ten_thousand_keys_of_which_one_is_saturated(many_lines: Tasks) -> None:
    claimed = await many_lines.database.transact(claim)
    held = await many_lines.database.read(lambda connection, clock: held_keys(connection))
    assert (len(claimed.runs), "key 0" in held) == (10, True)
    found = await plan(many_lines, claim, having="foremost", prefix=ANALYZE if many_lines.database.is_postgres else "")
    assert "ix_runs_claim" in found
    assert_no_table_is_read_whole(found)
    assert len(re.findall(r"Sort Key|TEMP B-TREE", found)) == 1
    # Of each priority ten at most to count, and ten to lock; and of these ten whether anybody follows.
    assert rows_read(found) <= 18 * 10 + 10


async def test_of_a_long_line_a_claim_reads_the_first_of_each_priority(many_lines: Tasks) -> None:
    found = await plan(many_lines, claim, having="levels", prefix=ANALYZE if many_lines.database.is_postgres else "")
    assert "ix_runs_line" in found
    assert_no_table_is_read_whole(found)
    assert_nothing_is_sorted(found)
    # The other nine have no followers, and cost nothing.
    assert rows_read(found) <= 9


def held_keys(connection: Connection) -> list[str]:
    return list(connection.scalars(select(tables.runs.c.concurrency_key).where(tables.runs.c.lease_token.is_not(None))))


def rows_read(found: str) -> int:
    """How many rows PostgreSQL took from the table of runs, those included that it left out; SQLite does not say."""
    scans = re.findall(r"(?:Scan|using) \S+ on runs.*actual rows=([0-9.]+) loops=(\d+)", found)
    scans += [(removed, "1") for removed in re.findall(r"Rows Removed by Filter: (\d+)", found)]
    return round(sum(float(rows) * int(loops) for rows, loops in scans))


async def test_the_next_of_a_line_is_found_at_its_front(backlog: Tasks) -> None:
    def finish(connection: Connection, clock: Clock) -> None:
        line.settle(connection, {("", "one")}, clock.now())

    await backlog.database.transact(
        lambda connection, clock: (
            connection.execute(
                tables.runs.delete().where(tables.runs.c.concurrency_key == "one", ~tables.runs.c.blocked)
            )
            and None
        )
    )
    found = await plan(backlog, finish, having="level")
    assert "ix_runs_line" in found
    assert_no_table_is_read_whole(found)
    assert_nothing_is_sorted(found)


async def test_a_report_finds_its_runs_by_their_ids(backlog: Tasks) -> None:
    claimed = await backlog.database.transact(claim)
    reports = [Report(run.lease, [], Succeeded({})) for run in claimed.runs]
    for statement in (
        "FOR UPDATE" if backlog.database.is_postgres else "ORDER BY runs.id",
        "INSERT INTO run_history",
        "DELETE",
    ):
        found = await plan(backlog, _undone(reports), having=statement)
        assert "pk_runs" in found or "sqlite_autoindex_runs" in found
        assert_no_table_is_read_whole(found)


def _undone(reports: list[Report]) -> Callable[[Connection, Clock], Any]:
    """Reports, and takes it back."""

    def report(connection: Connection, clock: Clock) -> None:
        with connection.begin_nested() as savepoint:
            work.report_runs(connection, reports, clock)
            savepoint.rollback()

    return report


async def test_a_scheduler_reads_what_is_due_in_its_order(busy: Tasks) -> None:
    found = await plan(
        busy,
        lambda connection, clock: schedule.lock_due_tasks(connection, now=clock.now(), limit=200),
        having="next_fire_at",
    )
    assert "ix_tasks_due" in found
    assert_nothing_is_sorted(found)


async def test_the_next_fire_time_is_the_first_of_the_index(busy: Tasks) -> None:
    found = await plan(busy, lambda connection, clock: schedule.next_fire_time(connection))
    assert "ix_tasks_due" in found


async def test_a_reaper_reads_leases_by_their_end(busy: Tasks) -> None:
    found = await plan(
        busy, lambda connection, clock: lease.lock_expired(connection, now=clock.now(), limit=1), having="SELECT"
    )
    assert "ix_runs_lease_expires_at" in found


def assert_no_table_is_read_whole(found: str) -> None:
    assert not re.search(r"Seq Scan on run|SCAN run", found)


def assert_nothing_is_sorted(found: str) -> None:
    for sorting in ("Sort", "TEMP B-TREE"):
        assert sorting not in found


async def test_work_that_has_ended_is_looked_for_among_the_tasks_of_its_role(busy: Tasks) -> None:
    wanted = TaskFilters(target="mailer", standing=[RunStatus.FAILED])
    found = await plan(
        busy, lambda connection, _: store.list_tasks(connection, wanted, limit=51), having="ORDER BY tasks.id"
    )
    assert "ix_tasks_role" in found
    assert_no_table_is_read_whole(found)

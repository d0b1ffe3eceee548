"""Runs with the same concurrency key go one after the other."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.work_service_pb2 import Lease, RunFailed, RunReport
from sqlalchemy import Connection, func, select

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.models.run import ErrorClass, Failed, LeasedRun, Outcome, Released, RunError, Succeeded
from services.tasks.models.run import RunReport as Report
from services.tasks.operations import work
from services.tasks.service import SCHEMA
from services.tasks.store import queue, tables
from tests.integration.tasks.lines import check_lines, new_run
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import PROMPTLY, failure, waiting_workers

CLAIMERS, KEYS, RUNS = 8, 6, 120


async def test_of_runs_with_one_key_only_one_is_under_way(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="the printer")
    run_ids = await tasks.queue_runs(task.id, 3)
    for run_id in run_ids:
        (leased,) = await tasks.lease(limit=10)
        assert leased.lease.run_id == run_id
        assert await tasks.lease(limit=10) == []
        await tasks.finish(leased.lease)
    assert await tasks.lease(limit=10) == []


@pytest.mark.parametrize("key", ["", "the printer"])
async def test_who_becomes_due_while_the_first_waits_may_be_more_urgent(tasks: Tasks, key: str) -> None:
    task, now = await tasks.create(concurrency_key=key), tasks.clock.now()
    (first,) = await tasks.queue_runs(task.id, 1, priority=9, due_at=now + timedelta(seconds=1))
    (urgent,) = await tasks.queue_runs(task.id, 1, priority=1, due_at=now + timedelta(seconds=1.2))
    (later,) = await tasks.queue_runs(task.id, 1, priority=1, due_at=now + timedelta(seconds=3))
    tasks.clock.advance(seconds=2.5)
    for run_id in (urgent, first):
        (leased,) = await tasks.lease()
        assert leased.lease.run_id == run_id
        await tasks.database.transact(check_lines)
        await tasks.finish(leased.lease)
    assert await tasks.lease() == []
    tasks.clock.advance(seconds=0.5)
    assert [run.lease.run_id for run in await tasks.lease(limit=5)] == [later]


async def test_the_most_urgent_of_each_line_come_in_the_order_of_all(tasks: Tasks) -> None:
    now, queued = tasks.clock.now(), {}
    for key, priorities in {"a": (9, 2), "b": (8, 3), "c": (7,), "": (4,)}.items():
        task = await tasks.create(concurrency_key=key)
        for seconds, priority in enumerate(priorities, 1):
            due_at = now + timedelta(seconds=seconds)
            (queued[priority],) = await tasks.queue_runs(task.id, 1, priority=priority, due_at=due_at)
    tasks.clock.advance(seconds=5)
    assert [run.lease.run_id for run in await tasks.lease(limit=10)] == [queued[priority] for priority in (2, 3, 4, 7)]
    await tasks.database.transact(check_lines)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_claim_waits_for_nobody_who_has_a_line(tasks: Tasks, postgres_database: str) -> None:
    task, now = await tasks.create(concurrency_key="the printer"), tasks.clock.now()
    (first,) = await tasks.queue_runs(task.id, 1, priority=9, due_at=now + timedelta(seconds=1))
    await tasks.queue_runs(task.id, 1, priority=1, due_at=now + timedelta(seconds=2))
    tasks.clock.advance(seconds=3)
    with psycopg.connect(postgres_database) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('the printer', hashtext('')))")
        # Then it takes whom it finds.
        (leased,) = await asyncio.wait_for(tasks.lease(), 4)
        other.rollback()
    assert leased.lease.run_id == first


async def test_runs_with_other_keys_or_none_are_not_kept(tasks: Tasks) -> None:
    keyed, other, free = [await tasks.create(concurrency_key=key) for key in ("a", "b", "")]
    await tasks.queue_runs(keyed.id, 2)
    await tasks.queue_runs(other.id, 2)
    await tasks.queue_runs(free.id, 2)
    assert sorted(run.task_id for run in await tasks.lease(limit=10)) == sorted([keyed.id, other.id, free.id, free.id])


async def test_a_key_is_one_for_all_tasks_and_all_roles(tasks: Tasks) -> None:
    first = await tasks.create(concurrency_key="the printer")
    second = await tasks.create(concurrency_key="the printer", role="review")
    await tasks.queue_runs(first.id, 1)
    (waits,) = await tasks.queue_runs(second.id, 1)
    (leased,) = await tasks.lease(limit=10)
    assert await tasks.lease(limit=10, role="review") == []
    await tasks.finish(leased.lease)
    (leased,) = await tasks.lease(limit=10, role="review")
    assert leased.lease.run_id == waits


async def test_the_most_urgent_of_a_line_comes_next(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k")
    (low,) = await tasks.queue_runs(task.id, 1, priority=9)
    (high,) = await tasks.queue_runs(task.id, 1, priority=1)
    (later,) = await tasks.queue_runs(task.id, 1, priority=1, due_at=tasks.clock.now() + timedelta(minutes=1))
    order = []
    for _ in range(3):
        (leased,) = await tasks.lease(limit=10)
        order.append(leased.lease.run_id)
        tasks.clock.advance(minutes=2)
        await tasks.finish(leased.lease)
    assert order == [high, later, low]


async def test_a_run_that_is_not_due_keeps_nobody_waiting(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k")
    await tasks.queue_runs(task.id, 1, due_at=tasks.clock.now() + timedelta(days=1))
    (due,) = await tasks.queue_runs(task.id, 1, priority=9)
    (leased,) = await tasks.lease(limit=10)
    assert leased.lease.run_id == due


async def test_a_run_that_waits_for_its_retry_keeps_nobody_waiting(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k", backoff_strategy=task_pb2.BACKOFF_STRATEGY_FIXED)
    failing, other = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease(limit=10)
    await tasks.report(_failed(leased.lease))
    (leased,) = await tasks.lease(limit=10)
    assert leased.lease.run_id == other
    tasks.clock.advance(seconds=1)
    assert await tasks.lease(limit=10) == []
    await tasks.finish(leased.lease)
    (leased,) = await tasks.lease(limit=10)
    assert leased.lease.run_id == failing


async def test_a_paused_task_keeps_no_other_task_of_its_line_waiting(tasks: Tasks) -> None:
    first, second = await tasks.create(concurrency_key="k"), await tasks.create(concurrency_key="k")
    await tasks.queue_runs(first.id, 1)
    (other,) = await tasks.queue_runs(second.id, 1)
    await _change(tasks, lambda connection, now: queue.pause_runs_of_task(connection, first.id, now))
    (leased,) = await tasks.lease(limit=10)
    assert leased.lease.run_id == other
    await tasks.finish(leased.lease)
    assert await tasks.lease(limit=10) == []
    await _change(tasks, lambda connection, now: queue.resume_runs_of_task(connection, first.id, now))
    assert len(await tasks.lease(limit=10)) == 1


async def test_where_overlap_is_queue_the_runs_of_a_task_go_one_after_the_other(tasks: Tasks) -> None:
    task, other = [await tasks.create(overlap=task_pb2.OVERLAP_QUEUE) for _ in range(2)]
    await tasks.queue_runs(task.id, 2)
    await tasks.queue_runs(other.id, 2)
    assert {run.task_id for run in await tasks.lease(limit=10)} == {task.id, other.id}
    assert await tasks.lease(limit=10) == []


@pytest.mark.usefixtures("hints_only")
async def test_the_end_of_a_run_wakes_a_worker_for_the_next_of_its_line(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k")
    _, following = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease()
    (waiting,) = await waiting_workers(tasks)
    await tasks.finish(leased.lease)
    assert await asyncio.wait_for(waiting, PROMPTLY) == [following]


async def test_a_run_whose_worker_died_gives_its_key_back(tasks: Tasks) -> None:
    task = await tasks.create(concurrency_key="k")
    await tasks.queue_runs(task.id, 2)
    (lost,) = await tasks.lease()
    tasks.clock.advance(seconds=31)
    await tasks.service.reaper.step()
    (leased,) = await tasks.lease(limit=10)
    assert (leased.lease.run_id, leased.lease.attempt) == (lost.lease.run_id, 2)
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def _change(tasks: Tasks, change: Callable[[Connection, datetime], Any]) -> None:
    await tasks.database.transact(lambda connection, clock: change(connection, clock.now()))


def _failed(lease: Lease) -> RunReport:
    return RunReport(lease=lease, failed=RunFailed(error=failure()))


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url, schema=SCHEMA, pool_size=CLAIMERS)
    yield database
    database.close()


async def test_racing_workers_never_hold_a_key_twice_and_leave_nobody_behind(database: Database) -> None:
    """Eight workers of two roles lease, finish, fail and give back, while runs come in."""
    chance = random.Random(7)
    under_way: set[str] = set()
    keys: dict[str, str] = {}
    produced = asyncio.Event()

    async def produce() -> None:
        for _ in range(RUNS // 10):
            await database.transact(lambda connection, clock: _add(connection, clock, chance, keys))
        produced.set()

    async def work_on(role: str) -> None:
        while not produced.is_set() or await database.read(_live):
            claimed = await database.transact(lambda connection, clock: _claim(connection, clock, role))
            with _held(under_way, [keys[run.lease.run_id] for run in claimed]):
                await asyncio.sleep(0)
            reports = [Report(run.lease, [], _outcome(chance)) for run in claimed]
            reported = await database.transact(
                lambda connection, clock: work.report_runs(connection, reports, clock)  # noqa: B023
            )
            assert all(receipt.accepted for receipt in reported.receipts)

    async with asyncio.timeout(60):
        await asyncio.gather(produce(), *(work_on(role) for role in ("", "review") * (CLAIMERS // 2)))
    assert await database.read(_live) == 0


@pytest.mark.parametrize("first", ["the end", "the newcomer"])
async def test_who_joins_a_line_while_its_head_leaves_is_not_left_behind(database: Database, first: str) -> None:
    """Neither transaction sees what the other one does, unless it waits for it."""
    now = datetime.now(UTC)
    head, newcomer = [new_run(now, concurrency_key="k") for _ in range(2)]
    await database.transact(lambda connection, clock: queue.add_runs(connection, [head], now))
    (leased,) = await database.transact(lambda connection, clock: _claim(connection, clock, ""))

    def end(connection: Connection, clock: Clock) -> None:
        work.report_runs(connection, [Report(leased.lease, [], Succeeded({}))], clock)

    def join(connection: Connection, clock: Clock) -> None:
        queue.add_runs(connection, [newcomer], now)

    changes = [end, join] if first == "the end" else [join, end]
    has_changed, may_commit = threading.Event(), threading.Event()

    def slowly(connection: Connection, clock: Clock) -> None:
        changes[0](connection, clock)
        has_changed.set()
        may_commit.wait(5)

    slow = asyncio.create_task(database.transact(slowly))
    await asyncio.to_thread(has_changed.wait, 5)
    other = asyncio.create_task(database.transact(changes[1]))
    await asyncio.wait([other], timeout=0.3)
    may_commit.set()
    await asyncio.gather(slow, other)
    assert [run.lease.run_id for run in await database.transact(lambda c, clock: _claim(c, clock, ""))] == [newcomer.id]


def _add(connection: Connection, clock: Clock, chance: random.Random, keys: dict[str, str]) -> None:
    new = [
        new_run(
            clock.now(),
            role=chance.choice(["", "review"]),
            concurrency_key=f"key {chance.randrange(KEYS)}",
            priority=chance.randint(1, 9),
            max_retries=0,
        )
        for _ in range(5)
    ]
    keys.update({run.id: run.concurrency_key for run in new})
    queue.add_runs(connection, new, clock.now())


def _claim(connection: Connection, clock: Clock, role: str) -> list[LeasedRun]:
    return work.lease_runs(connection, worker_id=new_id(), agent_id=new_id(), role=role, limit=3, clock=clock).runs


def _outcome(chance: random.Random) -> Outcome:
    failed = Failed(RunError(ErrorClass.TOOL, "", retryable=True, step_id=""), {})
    return chance.choice([Succeeded({}), Succeeded({}), failed, Released()])


@contextmanager
def _held(under_way: set[str], keys: list[str]) -> Iterator[None]:
    assert len(set(keys)) == len(keys)
    assert not under_way & set(keys)
    under_way.update(keys)
    yield
    under_way.difference_update(keys)


def _live(connection: Connection, clock: Clock) -> int:
    check_lines(connection, clock)
    live: int = connection.execute(select(func.count()).select_from(tables.runs)).scalar_one()
    return live

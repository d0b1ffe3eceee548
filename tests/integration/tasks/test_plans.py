"""The hot queries use the indexes that were made for them."""

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
from services.tasks.store import history, queue, tables
from services.tasks.store import task as task_store
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


async def plan(tasks: Tasks, work: Callable[[Connection, Clock], Any]) -> str:
    """How the database goes about the first statement of `work`."""

    def explain(connection: Connection, clock: Clock) -> str:
        with statements(connection) as sent:
            work(connection, clock)
        statement, parameters = sent[0]
        prefix = "EXPLAIN" if tasks.database.is_postgres else "EXPLAIN QUERY PLAN"
        rows = connection.exec_driver_sql(f"{prefix} {statement}", parameters)
        return "\n".join(str(row[-1]) for row in rows)

    return await tasks.database.transact(explain)


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


async def test_a_claim_reads_what_is_free_in_the_order_of_its_urgency(busy: Tasks) -> None:
    found = await plan(
        busy,
        lambda connection, clock: queue.claim(
            connection, owner=new_id(), token=new_id(), limit=1, now=clock.now() + timedelta(seconds=1)
        ),
    )
    assert "ix_runs_claim" in found
    assert_nothing_is_sorted(found)


async def test_a_scheduler_reads_what_is_due_in_its_order(busy: Tasks) -> None:
    found = await plan(
        busy, lambda connection, clock: task_store.lock_due_tasks(connection, now=clock.now(), limit=200)
    )
    assert "ix_tasks_due" in found
    assert_nothing_is_sorted(found)


async def test_the_next_fire_time_is_the_first_of_the_index(busy: Tasks) -> None:
    found = await plan(busy, lambda connection, clock: task_store.next_fire_time(connection))
    assert "ix_tasks_due" in found


async def test_a_reaper_reads_leases_by_their_end(busy: Tasks) -> None:
    found = await plan(busy, lambda connection, clock: queue.lock_expired(connection, now=clock.now(), limit=1))
    assert "ix_runs_lease_expires_at" in found


async def test_a_page_of_runs_is_read_off_the_keys(busy: Tasks) -> None:
    found = await plan(
        busy,
        lambda connection, clock: history.list_runs(connection, limit=51, before_id=new_id(), statuses=[], task_ids=[]),
    )
    for whole_table in ("Seq Scan", "SCAN runs\n", "SCAN run_history\n"):
        assert whole_table not in found


def assert_nothing_is_sorted(found: str) -> None:
    for sorting in ("Sort", "TEMP B-TREE"):
        assert sorting not in found

"""Somebody else stands still with a lock: what does not need it goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from typing import Any

import psycopg
import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.work_service_pb2 import Lease, RenewRunsRequest

from services.tasks.service import SCHEMA
from tests.integration.tasks.running import Tasks
from tests.support.databases import context_url

pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
LINE = "SELECT pg_advisory_xact_lock(hashtextextended(concurrency_key, hashtext(role))) FROM tasks.runs WHERE id = %s"
ROW = "SELECT FROM tasks.runs WHERE id = %s FOR UPDATE"
KEYS = [f"key {number}" for number in range(6)]


@contextmanager
def standing_still(database: str, run_id: str, *locks: str) -> Iterator[None]:
    """A time in which somebody who will never end by himself has locks of a run."""
    with psycopg.connect(context_url(database, SCHEMA)) as other:
        for lock in locks:
            other.execute(lock.encode(), [run_id])
        yield
        other.rollback()


async def leased(tasks: Tasks) -> list[Lease]:
    """Six leases, each of a run with a key of its own."""
    for key in KEYS:
        task = await tasks.create(concurrency_key=key)
        # Somebody stands in line behind it.
        await tasks.queue_runs(task.id, 2)
    return [run.lease for run in await tasks.lease(limit=6)]


async def renewed(tasks: Tasks, leases: list[Lease]) -> list[tuple[str, Any]]:
    """What is answered of each lease: the run, and the end."""
    answer = await asyncio.wait_for(tasks.work.RenewRuns(RenewRunsRequest(leases=leases)), 4)
    return [
        (item.run_id, item.expires_at.ToDatetime(UTC) if item.HasField("expires_at") else None)
        for item in answer.leases
    ]


async def test_one_run_that_is_not_to_be_had_costs_the_others_no_renewal(tasks: Tasks, postgres_database: str) -> None:
    stuck, ended, *others = await leased(tasks)
    await tasks.finish(ended)
    tasks.clock.advance(seconds=10)
    expires_at = tasks.clock.now() + timedelta(seconds=30)
    with standing_still(postgres_database, stuck.run_id, LINE, ROW):
        # Of the one nothing is said: neither that it is lost, nor that it lasts any longer.
        assert await renewed(tasks, [stuck, ended, *others]) == [
            ("", None),
            (ended.run_id, None),
            *((lease.run_id, expires_at) for lease in others),
        ]
    # Asked again, it is answered.
    assert await renewed(tasks, [stuck]) == [(stuck.run_id, expires_at)]


async def test_a_run_that_is_free_again_in_a_moment_is_waited_for(tasks: Tasks, postgres_database: str) -> None:
    leases = await leased(tasks)
    with standing_still(postgres_database, leases[0].run_id, ROW):
        renewing = asyncio.create_task(renewed(tasks, leases))
        done, _ = await asyncio.wait([renewing], timeout=0.2)
        assert not done
    expires_at = tasks.clock.now() + timedelta(seconds=30)
    assert await renewing == [(lease.run_id, expires_at) for lease in leases]


@pytest.mark.parametrize("locks", [(LINE,), (ROW,), (LINE, ROW)], ids=["line", "row", "line and row"])
async def test_one_run_that_is_not_to_be_had_keeps_no_other_from_being_rescued(
    tasks: Tasks, postgres_database: str, locks: tuple[str, ...]
) -> None:
    stuck, *others = await leased(tasks)
    tasks.clock.advance(seconds=31)
    with standing_still(postgres_database, stuck.run_id, *locks):
        await asyncio.wait_for(tasks.service.reaper.step(), 4)
        assert (await tasks.run(stuck.run_id)).status == run_pb2.RUN_STATUS_RUNNING
        rescued = [(await tasks.run(lease.run_id)).status for lease in others]
        assert rescued == [run_pb2.RUN_STATUS_QUEUED] * 5
    await tasks.service.reaper.step()
    assert (await tasks.run(stuck.run_id)).status == run_pb2.RUN_STATUS_QUEUED

"""A run that is done anew while it is deleted for its age."""

import asyncio
from typing import Any

import psycopg
import pytest
from baton.tasks.v1.run_service_pb2 import ListRunStepsRequest, RetryRunRequest
from baton.tasks.v1.work_service_pb2 import RunFailed, RunReport

from services.chassis.errors import NotFound
from services.tasks.operations import retention
from tests.integration.tasks.past import fatal
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failed_step, step
from tests.support.waiting import await_until

# SQLite has one writer.
pytestmark = pytest.mark.parametrize("engine", ["postgres"], indirect=True)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def failed_run(tasks: Tasks) -> tuple[str, str]:
    """A task, and a run of it that failed at its second step."""
    task = await tasks.create()
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    report = RunReport(lease=leased.lease, steps=[step(0), failed_step(1)], failed=RunFailed(error=fatal()))
    assert await tasks.report(report) == [True]
    return task.id, leased.lease.run_id


async def prune(tasks: Tasks) -> Any:
    def prune_all(connection: Any, clock: Any) -> Any:
        return retention.prune_batch(connection, clock.now(), 10, clock)

    tasks.clock.advance(days=1)
    return await tasks.database.transact(prune_all)


async def count_waiting(other: psycopg.Connection[Any], count: int) -> None:
    await await_until(lambda: other.execute(WAITING).fetchone() == (count,))


async def test_a_run_that_is_being_done_anew_keeps_its_steps_until_they_are_copied(
    tasks: Tasks, postgres_database: str
) -> None:
    task_id, run_id = await failed_run(tasks)
    with psycopg.connect(postgres_database) as other, psycopg.connect(postgres_database, autocommit=True) as looking:
        # The retry has read the old run, and waits for the task.
        other.execute("SELECT FROM tasks.tasks WHERE id = %s FOR UPDATE", [task_id])
        retrying = asyncio.ensure_future(tasks.runs.RetryRun(RetryRunRequest(run_id=run_id)))
        await count_waiting(looking, 1)
        pruning = asyncio.create_task(prune(tasks))
        await count_waiting(looking, 2)
        other.rollback()
    anew = (await retrying).run
    assert (await pruning).runs == 1
    assert list((await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=anew.id))).items) == [step(0)]


async def test_a_run_that_is_being_deleted_is_not_done_anew(tasks: Tasks, postgres_database: str) -> None:
    _, run_id = await failed_run(tasks)
    with psycopg.connect(postgres_database) as other, psycopg.connect(postgres_database, autocommit=True) as looking:
        other.execute("DELETE FROM tasks.run_history WHERE id = %s", [run_id])
        other.execute("DELETE FROM tasks.run_steps WHERE run_id = %s", [run_id])
        retrying = asyncio.ensure_future(tasks.runs.RetryRun(RetryRunRequest(run_id=run_id)))
        await count_waiting(looking, 1)
        other.commit()
    with pytest.raises(NotFound):
        await retrying

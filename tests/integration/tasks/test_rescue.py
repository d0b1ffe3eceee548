"""Runs whose worker is gone."""

import asyncio

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ListRunStepsRequest
from baton.tasks.v1.work_service_pb2 import RenewRunsRequest, RunReport

from services.chassis.structs import to_struct
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import PROMPTLY, failed_step, step, waiting_workers


async def expire(tasks: Tasks) -> None:
    """Lets all leases end, and be noticed."""
    tasks.clock.advance(seconds=30.001)
    await tasks.service.reaper.step()


async def test_a_run_is_rescued_when_its_lease_has_ended_and_not_before(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    await tasks.lease()
    started_at = (await tasks.run(run_id)).started_at
    tasks.clock.advance(seconds=30)
    assert await tasks.service.reaper.step() == 1.0
    assert (await tasks.run(run_id)).status == run_pb2.RUN_STATUS_RUNNING
    tasks.clock.advance(seconds=0.001)
    await tasks.service.reaper.step()
    run = await tasks.run(run_id)
    # It began when it was leased first.
    assert (run.status, run.attempt, run.started_at) == (run_pb2.RUN_STATUS_QUEUED, 1, started_at)


async def test_a_worker_that_lost_its_run_can_write_nothing_more(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    (lost,) = await tasks.lease()
    late = RunReport(lease=lost.lease, steps=[step(0), step(1)], succeeded={})
    await expire(tasks)
    assert await tasks.report(late) == [False]
    (held,) = await tasks.lease()
    assert (held.lease.run_id, held.lease.attempt) == (run_id, 2)
    # Its own worker may be the new one, too, and report both in one batch, in either order.
    assert await tasks.report(late, RunReport(lease=held.lease, steps=[step(0, attempt=2)])) == [False, True]
    assert await tasks.report(RunReport(lease=held.lease, steps=[step(2, attempt=2)]), late) == [True, False]
    renewed = (await tasks.work.RenewRuns(RenewRunsRequest(leases=[held.lease, lost.lease]))).leases
    assert [item.HasField("expires_at") for item in renewed] == [True, False]
    steps = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items
    assert list(steps) == [step(0, attempt=2), step(2, attempt=2)]
    assert await tasks.finish(held.lease)


async def test_the_next_worker_gets_the_steps_that_are_done_and_adds_its_own(tasks: Tasks) -> None:
    echo = {"uses": "echo.test"}
    task = await tasks.create(payload=to_struct({"pipeline": [echo | {"save_as": "kept"}, echo, echo]}))
    run_id = await tasks.run_now(task.id)
    (first,) = await tasks.lease()
    await tasks.report(RunReport(lease=first.lease, steps=[step(0), step(1), failed_step(2)]))
    await expire(tasks)
    (second,) = await tasks.lease()
    unsaved = step(1)
    unsaved.ClearField("output")
    assert list(second.steps) == [step(0), unsaved, failed_step(2)]
    done_again = [step(position, attempt=2, duration_ms=99) for position in range(3)]
    assert await tasks.report(RunReport(lease=second.lease, steps=done_again, succeeded={})) == [True]
    steps = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items
    assert list(steps) == [step(0), step(1), done_again[2]]


async def test_a_run_that_three_workers_died_of_is_ended(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    for attempt in (1, 2, 3):
        (leased,) = await tasks.lease()
        assert leased.lease.attempt == attempt
        await tasks.report(RunReport(lease=leased.lease, steps=[step(attempt, attempt=attempt)]))
        await expire(tasks)
    run = await tasks.run(run_id)
    assert (run.status, run.attempt) == (run_pb2.RUN_STATUS_FAILED, 3)
    assert getattr(run.error, "class") == run_pb2.ERROR_CLASS_POISON
    assert "3 workers died" in run.error.message
    assert not run.error.retryable
    assert run.duration_ms == 90_003
    assert await tasks.lease() == []
    assert await tasks.count(tables.runs) == 0
    assert len((await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items) == 3


async def test_two_reapers_count_a_crash_once(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    for _ in range(2):
        await tasks.lease()
        await expire(tasks)
        await tasks.service.reaper.step()
    assert (await tasks.run(run_id)).status == run_pb2.RUN_STATUS_QUEUED


@pytest.mark.usefixtures("hints_only")
async def test_a_rescued_run_wakes_a_waiting_worker(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    await tasks.lease()
    (waiting,) = await waiting_workers(tasks)
    await expire(tasks)
    assert await asyncio.wait_for(waiting, PROMPTLY) == [run_id]

"""Runs that failed of something that may pass."""

from datetime import UTC, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import ListRunStepsRequest
from baton.tasks.v1.work_service_pb2 import Lease, LeasedRun, RunFailed, RunReport
from google.protobuf.duration_pb2 import Duration

from services.chassis.structs import to_struct
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failed_step, failure, step

FIXED = {"backoff_strategy": task_pb2.BACKOFF_STRATEGY_FIXED}


def failed(lease: Lease, error_class: Any = run_pb2.ERROR_CLASS_TOOL, **fields: Any) -> RunReport:
    steps = fields.pop("steps", [])
    error = run_pb2.RunError(**{"class": error_class}, message="down", retryable=True)
    return RunReport(lease=lease, steps=steps, failed=RunFailed(error=error, output=to_struct({}), **fields))


async def leased_run(tasks: Tasks, **fields: Any) -> LeasedRun:
    """A run of a new task with these fields."""
    task = await tasks.create(**FIXED | fields)
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    return leased


@pytest.mark.parametrize(
    "error_class", [run_pb2.ERROR_CLASS_TOOL, run_pb2.ERROR_CLASS_TOOL_TIMEOUT, run_pb2.ERROR_CLASS_INTERNAL]
)
async def test_what_may_pass_is_tried_again(tasks: Tasks, error_class: Any) -> None:
    leased = await leased_run(tasks)
    assert await tasks.report(failed(leased.lease, error_class)) == [True]
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.retries, run.max_retries, run.attempt) == (run_pb2.RUN_STATUS_QUEUED, 1, 3, 1)
    assert (getattr(run.error, "class"), run.error.message) == (error_class, "down")
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(seconds=1)
    assert await tasks.lease() == []
    tasks.clock.advance(seconds=1)
    (again,) = await tasks.lease()
    assert (again.lease.run_id, again.lease.attempt) == (leased.lease.run_id, 2)
    await tasks.finish(again.lease)
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.retries, run.HasField("error")) == (run_pb2.RUN_STATUS_SUCCEEDED, 1, False)


@pytest.mark.parametrize(
    "error_class", [run_pb2.ERROR_CLASS_VALIDATION, run_pb2.ERROR_CLASS_TEMPLATE, run_pb2.ERROR_CLASS_CONDITION]
)
async def test_what_would_fail_again_is_not_tried_again(tasks: Tasks, error_class: Any) -> None:
    leased = await leased_run(tasks)
    # Whatever the worker thinks of it.
    await tasks.report(failed(leased.lease, error_class))
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_FAILED


@pytest.mark.parametrize(
    ("error_class", "retryable"), [(run_pb2.ERROR_CLASS_VALIDATION, False), (run_pb2.ERROR_CLASS_TOOL, True)]
)
async def test_an_error_is_shown_as_it_is_obeyed(tasks: Tasks, error_class: Any, retryable: bool) -> None:
    leased = await leased_run(tasks, max_retries=0)
    claimed = run_pb2.RunError(**{"class": error_class}, message="down", retryable=not retryable)
    steps = [failed_step(0)]
    steps[0].error.CopyFrom(claimed)
    await tasks.report(RunReport(lease=leased.lease, steps=steps, failed=RunFailed(error=claimed)))
    run_id = leased.lease.run_id
    assert (await tasks.run(run_id)).error.retryable == retryable
    (recorded,) = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items
    assert recorded.error.retryable == retryable


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_run_fails_when_its_retries_are_used_up(tasks: Tasks, retries: int) -> None:
    leased = await leased_run(tasks, max_retries=retries)
    for attempt in range(1, retries + 2):
        assert leased.lease.attempt == attempt
        await tasks.report(failed(leased.lease))
        tasks.clock.advance(seconds=1)
        if attempt <= retries:
            (leased,) = await tasks.lease()
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.retries, run.attempt) == (run_pb2.RUN_STATUS_FAILED, retries, retries + 1)
    assert await tasks.lease() == []


async def test_the_strategy_of_the_task_says_how_long_a_run_waits(tasks: Tasks) -> None:
    leased = await leased_run(tasks, backoff_strategy=task_pb2.BACKOFF_STRATEGY_LINEAR)
    for seconds in (1, 2, 3):
        await tasks.report(failed(leased.lease))
        tasks.clock.advance(seconds=seconds - 0.001)
        assert await tasks.lease() == []
        tasks.clock.advance(seconds=0.001)
        (leased,) = await tasks.lease()


async def test_a_tool_that_asks_for_more_time_gets_it(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.report(failed(leased.lease, retry_after=Duration(seconds=90)))
    run = await tasks.run(leased.lease.run_id)
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(seconds=90)


async def test_a_tool_does_not_get_more_than_an_hour(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.report(failed(leased.lease, retry_after=Duration(seconds=315_576_000_000)))
    run = await tasks.run(leased.lease.run_id)
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(hours=1)


async def test_the_next_attempt_gets_the_steps_that_are_done(tasks: Tasks) -> None:
    leased = await leased_run(tasks, payload={"pipeline": [{"uses": "echo.test"}] * 2})
    await tasks.report(failed(leased.lease, steps=[step(0), failed_step(1)]))
    tasks.clock.advance(seconds=1)
    (again,) = await tasks.lease()
    assert [item.status for item in again.steps] == [run_pb2.STEP_STATUS_SUCCEEDED, run_pb2.STEP_STATUS_FAILED]


async def test_a_failure_is_no_crash_and_a_crash_is_no_failure(tasks: Tasks) -> None:
    leased = await leased_run(tasks, max_retries=10)
    for _ in range(4):
        await tasks.report(failed(leased.lease))
        tasks.clock.advance(seconds=1)
        (leased,) = await tasks.lease()
    tasks.clock.advance(seconds=31)
    await tasks.service.reaper.step()
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.retries) == (run_pb2.RUN_STATUS_QUEUED, 4)


async def test_a_failure_in_a_batch_leaves_the_others_alone(tasks: Tasks) -> None:
    task = await tasks.create(**FIXED)
    await tasks.queue_runs(task.id, 3)
    leases = [run.lease for run in await tasks.lease(limit=3)]
    done = RunReport(lease=leases[1], succeeded={})
    assert await tasks.report(failed(leases[0]), done, RunReport(lease=leases[2], released={})) == [True] * 3
    statuses = [(await tasks.run(lease.run_id)).status for lease in leases]
    assert statuses == [run_pb2.RUN_STATUS_QUEUED, run_pb2.RUN_STATUS_SUCCEEDED, run_pb2.RUN_STATUS_QUEUED]
    # The one that was given back at once, the one that failed when its time has come.
    assert [run.lease.run_id for run in await tasks.lease(limit=3)] == [leases[2].run_id]


async def test_a_late_report_of_a_failure_costs_no_retry(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    late = RunReport(lease=leased.lease, failed=RunFailed(error=failure()))
    assert await tasks.report(late, late) == [True, False]
    assert (await tasks.run(leased.lease.run_id)).retries == 1

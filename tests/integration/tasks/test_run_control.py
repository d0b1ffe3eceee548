"""Calling runs off, and doing them anew."""

from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import CancelRunRequest, ListRunStepsRequest, RetryRunRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from baton.tasks.v1.work_service_pb2 import (
    Lease,
    RenewRunsRequest,
    ReportRunsRequest,
    RunCanceled,
    RunFailed,
    RunReport,
)

from services.chassis.errors import FailedPrecondition, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.models.run import ErrorClass, RunError
from services.tasks.store import queue, tables
from tests.integration.tasks.reporting import Somebody
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failed_step, failure, step

CANCELED, QUEUED, RUNNING = run_pb2.RUN_STATUS_CANCELED, run_pb2.RUN_STATUS_QUEUED, run_pb2.RUN_STATUS_RUNNING
FAILED = RunFailed(error=failure(), output=to_struct({"a": 1}))


async def cancel(tasks: Tasks, run_id: str, reason: str = "") -> run_pb2.Run:
    return (await tasks.runs.CancelRun(CancelRunRequest(run_id=run_id, reason=reason))).run


async def retry(tasks: Tasks, run_id: str) -> run_pb2.Run:
    return (await tasks.runs.RetryRun(RetryRunRequest(run_id=run_id))).run


async def under_way(tasks: Tasks, **fields: Any) -> Lease:
    """The lease of a run of a new task."""
    task = await tasks.create(**fields)
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    return leased.lease


async def ended(tasks: Tasks, report: RunReport, **fields: Any) -> str:
    """A run that ended as a report says."""
    lease = await under_way(tasks, max_retries=0, **fields)
    report.lease.CopyFrom(lease)
    assert await tasks.report(report) == [True]
    return lease.run_id


async def test_a_queued_run_that_is_called_off_ends_at_once(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    run = await cancel(tasks, run_id, "not needed any more")
    assert (run.status, run.attempt, run.HasField("started_at")) == (CANCELED, 0, False)
    assert run.finished_at.ToMicroseconds() == run.updated_at.ToMicroseconds()
    assert not run.HasField("duration_ms")
    assert getattr(run.error, "class") == run_pb2.ERROR_CLASS_CANCELED
    assert "not needed any more" in run.error.message
    assert await tasks.lease() == []
    # Again, it changes nothing.
    tasks.clock.advance(seconds=1)
    assert await cancel(tasks, run_id, "another reason") == run == await tasks.run(run_id)


async def test_a_run_under_way_is_told_to_stop_and_ends_when_it_has(tasks: Tasks) -> None:
    lease = await under_way(tasks)
    run = await cancel(tasks, lease.run_id, "the build is red")
    assert (run.status, run.cancel_requested_at.ToMicroseconds()) == (RUNNING, run.updated_at.ToMicroseconds())
    tasks.clock.advance(seconds=1)
    again = await cancel(tasks, lease.run_id)
    assert again.cancel_requested_at == run.cancel_requested_at
    (renewed,) = (await tasks.work.RenewRuns(RenewRunsRequest(leases=[lease]))).leases
    assert renewed.cancel_requested
    report = ReportRunsRequest(reports=[RunReport(lease=lease, steps=[step(0)])])
    (receipt,) = (await tasks.work.ReportRuns(report)).receipts
    assert (receipt.accepted, receipt.cancel_requested) == (True, True)
    stopped = RunReport(lease=lease, canceled=RunCanceled(output=to_struct({"a": 1})))
    assert await tasks.report(stopped) == [True]
    run = await tasks.run(lease.run_id)
    assert (run.status, run.output, run.success) == (CANCELED, to_struct({"a": 1}), False)
    assert "the build is red" in run.error.message


async def test_who_is_not_called_off_is_not_told_so(tasks: Tasks) -> None:
    lease = await under_way(tasks)
    (renewed,) = (await tasks.work.RenewRuns(RenewRunsRequest(leases=[lease]))).leases
    assert not renewed.cancel_requested
    report = ReportRunsRequest(reports=[RunReport(lease=lease)])
    assert not (await tasks.work.ReportRuns(report)).receipts[0].cancel_requested


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ({"failed": FAILED}, CANCELED),
        ({"released": {}}, CANCELED),
        ({"succeeded": {}}, run_pb2.RUN_STATUS_SUCCEEDED),
    ],
)
async def test_a_run_that_was_called_off_does_not_come_back(tasks: Tasks, outcome: Any, status: Any) -> None:
    lease = await under_way(tasks)
    await cancel(tasks, lease.run_id)
    await tasks.report(RunReport(lease=lease, **outcome))
    run = await tasks.run(lease.run_id)
    assert (run.status, run.HasField("error")) == (status, status == CANCELED)
    tasks.clock.advance(hours=1)
    assert await tasks.lease() == []


async def test_a_run_that_was_called_off_and_whose_worker_died_ends(tasks: Tasks) -> None:
    lease = await under_way(tasks)
    await cancel(tasks, lease.run_id)
    tasks.clock.advance(seconds=31)
    await tasks.service.reaper.step()
    assert (await tasks.run(lease.run_id)).status == CANCELED
    assert await tasks.count(tables.runs) == 0


async def test_a_finished_run_cannot_be_called_off(tasks: Tasks) -> None:
    run_id = await ended(tasks, RunReport(succeeded={}))
    with pytest.raises(FailedPrecondition) as refused:
        await cancel(tasks, run_id)
    assert (refused.value.reason, refused.value.metadata["status"]) == ("RUN_FINISHED", "succeeded")


async def test_calling_all_runs_of_a_task_off_ends_some_and_stops_others(tasks: Tasks) -> None:
    task, other = await tasks.create(), await tasks.create()
    queued = await tasks.queue_runs(task.id, 3)
    await tasks.queue_runs(other.id, 1, priority=9)
    (held,) = await tasks.lease()
    error = RunError(ErrorClass.CANCELED, "no more", retryable=False, step_id="")
    count = await tasks.database.transact(
        lambda connection, clock: queue.cancel_live_of_task(connection, task.id, error, clock.now())
    )
    assert count == 3
    assert [(await tasks.run(run_id)).status for run_id in queued] == [RUNNING, CANCELED, CANCELED]
    assert (await tasks.run(held.lease.run_id)).HasField("cancel_requested_at")
    assert [run.task_id for run in await tasks.lease(limit=10)] == [other.id]


async def test_a_retry_is_a_new_run_that_begins_at_the_failed_step(tasks: Tasks) -> None:
    payload = {"pipeline": [{"uses": "echo.test", "save_as": f"step_{n}"} for n in range(3)], "params": {"x": 1}}
    skipped = step(1, status=run_pb2.STEP_STATUS_SKIPPED, output=None)
    old = await ended(tasks, RunReport(steps=[step(0), skipped, failed_step(2)], failed=FAILED), payload=payload)
    before = await tasks.run(old)
    tasks.clock.advance(minutes=5)
    run = await retry(tasks, old)
    assert (run.retry_of, run.status, run.attempt, run.retries) == (old, QUEUED, 0, 0)
    assert run.due_at.ToMicroseconds() == run.created_at.ToMicroseconds()
    for name in ("task_id", "task", "inputs", "priority", "created_by", "role", "max_retries", "batch_id"):
        assert getattr(run, name) == getattr(before, name)
    (leased,) = await tasks.lease()
    assert leased.lease.run_id == run.id
    assert leased.payload == to_struct(payload)
    assert list(leased.steps) == [step(0), skipped]
    # The old one stays as it was.
    assert await tasks.run(old) == before
    steps = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=old))).items
    assert [item.position for item in steps] == [0, 1, 2]


async def test_a_canceled_run_can_be_done_anew(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    await cancel(tasks, run_id)
    assert (await retry(tasks, run_id)).status == QUEUED


async def test_what_is_not_finished_is_not_done_anew(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    for status in ("queued", "running"):
        with pytest.raises(FailedPrecondition) as refused:
            await retry(tasks, run_id)
        assert (refused.value.reason, refused.value.metadata["status"]) == ("RUN_NOT_FINISHED", status)
        await tasks.lease()


async def test_what_succeeded_is_not_done_anew(tasks: Tasks) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        await retry(tasks, await ended(tasks, RunReport(succeeded={})))
    assert refused.value.reason == "RUN_SUCCEEDED"


async def test_a_run_of_a_canceled_task_is_not_done_anew(tasks: Tasks) -> None:
    run_id = await ended(tasks, RunReport(failed=FAILED))
    await set_status(tasks, "canceled")
    with pytest.raises(FailedPrecondition) as refused:
        await retry(tasks, run_id)
    assert refused.value.reason == "TASK_NOT_ACTIVE"


async def set_status(tasks: Tasks, status: str) -> None:
    change = tables.tasks.update().values(status=status)
    await tasks.database.transact(lambda connection, clock: connection.execute(change) and None)


async def test_unknown_runs_are_not_found(tasks: Tasks) -> None:
    for call in (cancel, retry):
        with pytest.raises(NotFound) as refused:
            await call(tasks, new_id())
        assert refused.value.reason == "RUN_NOT_FOUND"


async def test_only_the_owner_or_an_admin_steers_a_run(tasks: Tasks) -> None:
    stranger = RunServiceStub(tasks.channel(["tasks:write", "runs:read"], agent_id=new_id()))
    admin = RunServiceStub(tasks.channel(["admin"], agent_id=new_id()))
    live, finished = (await under_way(tasks)).run_id, await ended(tasks, RunReport(failed=FAILED))
    for run_id in (live, finished):
        with pytest.raises(PermissionDenied) as refused:
            await stranger.CancelRun(CancelRunRequest(run_id=run_id))
        assert refused.value.reason == "RUN_OF_ANOTHER_AGENT"
        with pytest.raises(PermissionDenied) as refused:
            await stranger.RetryRun(RetryRunRequest(run_id=run_id))
        assert refused.value.reason == "RUN_OF_ANOTHER_AGENT"
    assert (await admin.CancelRun(CancelRunRequest(run_id=live))).run.HasField("cancel_requested_at")
    created_by = (await tasks.run(finished)).created_by
    assert (await admin.RetryRun(RetryRunRequest(run_id=finished))).run.created_by == created_by


async def test_a_repeated_request_has_one_effect(tasks: Tasks) -> None:
    request = RetryRunRequest(run_id=await ended(tasks, RunReport(failed=FAILED)), request_id="once")
    first, second = [(await tasks.runs.RetryRun(request)).run for _ in range(2)]
    assert first == second
    assert await tasks.count(tables.runs) == 1


@pytest.mark.parametrize("status", [RUNNING, run_pb2.RUN_STATUS_AWAITING_APPROVAL])
async def test_a_reported_run_that_is_called_off_ends_at_once_and_is_not_done_anew(tasks: Tasks, status: Any) -> None:
    reporter = Somebody(tasks, "runs:report")
    runs = RunServiceStub(tasks.channel(["tasks:write", "runs:read"], agent_id=reporter.id))
    run_id = (await reporter.report(status)).id
    run = (await runs.CancelRun(CancelRunRequest(run_id=run_id))).run
    assert (run.status, run.HasField("finished_at")) == (CANCELED, True)
    # Nobody is asked for approval any more.
    awaited = status == run_pb2.RUN_STATUS_AWAITING_APPROVAL
    assert run.approval_state == (run_pb2.APPROVAL_STATE_CANCELLED if awaited else 0)
    with pytest.raises(FailedPrecondition) as refused:
        await runs.RetryRun(RetryRunRequest(run_id=run_id))
    assert refused.value.reason == "RUN_REPORTED"

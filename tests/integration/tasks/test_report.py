"""Reporting what was done, under a lease that still holds or no longer does."""

from datetime import UTC
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ListRunStepsRequest
from baton.tasks.v1.work_service_pb2 import Lease, ReportRunsRequest, RunFailed, RunReport, RunSucceeded

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import to_struct, to_value
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import failed_step, failure, step

DONE = RunSucceeded(output=to_struct({"a": 1}))


async def leased(tasks: Tasks, count: int = 1, **fields: Any) -> list[Lease]:
    """The leases of new runs, of a task with these fields."""
    task = await tasks.create(**fields)
    await tasks.queue_runs(task.id, count)
    return [run.lease for run in await tasks.lease(limit=count)]


async def steps_of(tasks: Tasks, run_id: str) -> list[run_pb2.RunStep]:
    return list((await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items)


async def test_a_run_that_succeeds_becomes_history(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    tasks.clock.advance(seconds=2.5)
    assert await tasks.report(RunReport(lease=lease, steps=[step(0)], succeeded=DONE)) == [True]
    run = await tasks.run(lease.run_id)
    assert (run.status, run.attempt, run.duration_ms) == (run_pb2.RUN_STATUS_SUCCEEDED, 1, 2500)
    assert run.output == to_struct({"a": 1})
    assert not run.HasField("error")
    assert run.finished_at.ToDatetime(UTC) == run.updated_at.ToDatetime(UTC) == tasks.clock.now()
    assert await steps_of(tasks, lease.run_id) == [step(0)]
    assert (await tasks.count(tables.runs), await tasks.count(tables.run_history)) == (0, 1)


async def test_a_run_that_fails_says_why_and_what_it_had_done(tasks: Tasks) -> None:
    (lease,) = await leased(tasks, max_retries=0)
    failed = RunFailed(error=failure("no answer, 'quoted'\n2nd line 🎉"), output=to_struct({"b": None}))
    assert await tasks.report(RunReport(lease=lease, steps=[step(0), failed_step(1)], failed=failed)) == [True]
    run = await tasks.run(lease.run_id)
    assert run.status == run_pb2.RUN_STATUS_FAILED
    assert run.error == failed.error
    assert run.output == failed.output
    first, second = await steps_of(tasks, lease.run_id)
    assert (first, second) == (step(0), failed_step(1))
    assert not second.HasField("output")


@pytest.mark.parametrize("output", [None, False, 0, 1.5, "", [], {}, {"deep": [{"er": [None]}]}, 2**53, -1e300])
async def test_a_step_keeps_any_output(tasks: Tasks, output: Any) -> None:
    (lease,) = await leased(tasks)
    given = step(0, output=to_value(output))
    await tasks.report(RunReport(lease=lease, steps=[given]))
    assert await steps_of(tasks, lease.run_id) == [given]


async def test_steps_are_recorded_while_the_run_goes_on(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    assert await tasks.report(RunReport(lease=lease, steps=[step(0)])) == [True]
    assert (await tasks.run(lease.run_id)).status == run_pb2.RUN_STATUS_RUNNING
    assert await tasks.report(RunReport(lease=lease, steps=[step(1)], succeeded=DONE)) == [True]
    assert [item.position for item in await steps_of(tasks, lease.run_id)] == [0, 1]


async def test_a_report_that_is_repeated_changes_nothing(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    going_on = RunReport(lease=lease, steps=[step(0)])
    ended = RunReport(lease=lease, steps=[step(0), step(1)], succeeded=DONE)
    await tasks.report(going_on, going_on)
    assert await tasks.report(going_on, ended) == [True, True]
    before = (await tasks.run(lease.run_id), await steps_of(tasks, lease.run_id))
    tasks.clock.advance(seconds=1)
    for late in (ended, going_on, RunReport(lease=lease, failed=RunFailed(error=failure())), released(lease)):
        assert await tasks.report(late) == [False]
    assert (await tasks.run(lease.run_id), await steps_of(tasks, lease.run_id)) == before
    assert (await tasks.count(tables.runs), await tasks.count(tables.run_history)) == (0, 1)


def released(lease: Lease) -> RunReport:
    return RunReport(lease=lease, released={})


async def test_a_recorded_step_stays_as_it_is(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    changed = step(0, output=to_value("something else"), duration_ms=99)
    # Twice in one report, and once more in another.
    await tasks.report(RunReport(lease=lease, steps=[step(0), changed]))
    await tasks.report(RunReport(lease=lease, steps=[changed]))
    await tasks.report(RunReport(lease=lease, steps=[failed_step(0)]))
    assert await steps_of(tasks, lease.run_id) == [step(0)]


async def test_a_step_that_failed_may_succeed_later(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    await tasks.report(RunReport(lease=lease, steps=[failed_step(0)]))
    await tasks.report(RunReport(lease=lease, steps=[step(0)]))
    assert await steps_of(tasks, lease.run_id) == [step(0)]


async def test_of_two_ends_of_one_run_the_first_counts(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    failed = RunReport(lease=lease, failed=RunFailed(error=failure()))
    assert await tasks.report(RunReport(lease=lease, succeeded=DONE), failed) == [True, False]
    assert (await tasks.run(lease.run_id)).status == run_pb2.RUN_STATUS_SUCCEEDED


@pytest.mark.parametrize("fault", ["token", "attempt", "run"])
async def test_a_report_without_the_lease_is_refused_as_a_whole(tasks: Tasks, fault: str) -> None:
    (lease,) = await leased(tasks)
    wrong = Lease(
        run_id=new_id() if fault == "run" else lease.run_id,
        attempt=2 if fault == "attempt" else 1,
        token=new_id() if fault == "token" else lease.token,
    )
    before = await tasks.run(lease.run_id)
    assert await tasks.report(RunReport(lease=wrong, steps=[step(0)], succeeded=DONE), released(wrong)) == [False] * 2
    assert await tasks.run(lease.run_id) == before
    assert await tasks.count(tables.run_steps) == 0
    assert await tasks.finish(lease)


async def test_a_batch_takes_what_is_right_and_refuses_the_rest(tasks: Tasks) -> None:
    ended, going_on, given_back, stale = await leased(tasks, 4)
    forged = Lease(run_id=stale.run_id, attempt=1, token=new_id())
    accepted = await tasks.report(
        RunReport(lease=ended, steps=[step(0)], succeeded=DONE),
        RunReport(lease=forged, steps=[step(0)], succeeded=DONE),
        RunReport(lease=going_on, steps=[step(0)]),
        RunReport(lease=Lease(run_id=new_id(), attempt=1, token=new_id()), succeeded=DONE),
        released(given_back),
        # The same run as the forged one, and before or behind it in the batch makes no difference.
        RunReport(lease=stale, steps=[step(1)]),
        RunReport(lease=forged),
    )
    assert accepted == [True, False, True, False, True, True, False]
    statuses = [(await tasks.run(lease.run_id)).status for lease in (ended, going_on, given_back, stale)]
    assert statuses == [
        run_pb2.RUN_STATUS_SUCCEEDED,
        run_pb2.RUN_STATUS_RUNNING,
        run_pb2.RUN_STATUS_QUEUED,
        run_pb2.RUN_STATUS_RUNNING,
    ]
    assert [item.position for item in await steps_of(tasks, stale.run_id)] == [1]


async def test_a_run_given_back_can_be_leased_at_once_and_keeps_its_steps(tasks: Tasks) -> None:
    (lease,) = await leased(tasks)
    for attempt in range(2, 7):
        assert await tasks.report(RunReport(lease=lease, steps=[step(attempt, attempt=attempt - 1)], released={}))
        run = await tasks.run(lease.run_id)
        assert run.status == run_pb2.RUN_STATUS_QUEUED
        (again,) = await tasks.lease()
        assert (again.lease.run_id, again.lease.attempt) == (lease.run_id, attempt)
        assert again.lease.token != lease.token
        assert [item.position for item in again.steps] == list(range(2, attempt + 1))
        assert await tasks.report(RunReport(lease=lease, succeeded=DONE)) == [False]
        lease = again.lease
    # So often is no fault: it does not poison the run.
    assert await tasks.finish(lease)
    run = await tasks.run(lease.run_id)
    assert (run.status, run.attempt) == (run_pb2.RUN_STATUS_SUCCEEDED, 6)


@one_engine
async def test_an_output_above_64_kib_is_refused(tasks: Tasks) -> None:
    good, large = await leased(tasks, 2)
    too_much = RunSucceeded(output=to_struct({"text": "x" * 65536}))
    with pytest.raises(InvalidArgument) as refused:
        await tasks.report(RunReport(lease=good, succeeded=DONE), RunReport(lease=large, succeeded=too_much))
    assert [violation.field for violation in refused.value.violations] == ["reports[1].succeeded.output"]
    assert await tasks.count(tables.run_history) == 0


@one_engine
@pytest.mark.parametrize(
    ("fault", "field"),
    [
        # A lease with such outputs would not fit into one message, and nobody could ever do the run.
        ({"output": to_value("x" * 65536)}, "output"),
        ({"status": run_pb2.STEP_STATUS_FAILED, "output": None}, "error"),
    ],
)
async def test_a_step_that_cannot_be_recorded_is_named(tasks: Tasks, fault: dict[str, Any], field: str) -> None:
    (lease,) = await leased(tasks)
    with pytest.raises(InvalidArgument) as refused:
        await tasks.report(RunReport(lease=lease, steps=[step(0), step(1, **fault)]))
    assert [violation.field for violation in refused.value.violations] == [f"reports[0].steps[1].{field}"]
    assert await steps_of(tasks, lease.run_id) == []
    largest = step(1, output=to_value("x" * 65534))
    assert await tasks.report(RunReport(lease=lease, steps=[step(0), largest])) == [True]


@one_engine
@pytest.mark.parametrize(
    ("reports", "field"),
    [
        ([], "reports"),
        ([RunReport()], "reports[0].lease"),
        ([RunReport(lease=Lease(run_id=new_id(), attempt=1, token=new_id()), failed={})], "reports[0].failed.error"),
    ],
)
async def test_a_bad_field_is_named(tasks: Tasks, reports: list[RunReport], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.work.ReportRuns(ReportRunsRequest(reports=reports))
    assert [violation.field for violation in refused.value.violations] == [field]

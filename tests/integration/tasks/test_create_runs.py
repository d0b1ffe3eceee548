"""Queueing many runs in one call."""

from datetime import UTC, timedelta
from typing import Any

import pytest
from baton.tasks.v1.run_service_pb2 import CreateRunsRequest, NewRun
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ServiceError
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks, one_engine


async def create(tasks: Tasks, *runs: NewRun, **fields: Any) -> list[tuple[str, bool]]:
    response = await tasks.runs.CreateRuns(CreateRunsRequest(runs=runs, **fields))
    return [(run.run_id, run.duplicate) for run in response.runs]


def at(instant: Any) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp


async def test_runs_are_queued_as_they_were_wanted(tasks: Tasks) -> None:
    task = await tasks.create(payload={"pipeline": [], "params": {"a": 1, "b": 2}}, priority=4, role="review")
    later = tasks.clock.now() + timedelta(hours=1)
    (plain, _), (special, _) = await create(
        tasks,
        NewRun(task_id=task.id),
        NewRun(task_id=task.id, params=to_struct({"b": 3}), due_at=at(later), priority=2, batch_id="nightly"),
    )
    run = await tasks.run(plain)
    assert (run.priority, run.batch_id, run.role, run.inputs) == (4, "", "review", to_struct({"a": 1, "b": 2}))
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now()
    run = await tasks.run(special)
    assert (run.priority, run.batch_id, run.inputs) == (2, "nightly", to_struct({"a": 1, "b": 3}))
    assert run.due_at.ToDatetime(UTC) == later
    assert run.created_by == task.created_by


async def test_nobody_gets_ahead_by_being_due_long_ago(tasks: Tasks) -> None:
    task = await tasks.create()
    ((run_id, _),) = await create(tasks, NewRun(task_id=task.id, due_at=at(tasks.clock.now() - timedelta(days=9))))
    assert (await tasks.run(run_id)).due_at.ToDatetime(UTC) == tasks.clock.now()


async def test_a_thousand_runs_are_answered_in_their_order(tasks: Tasks) -> None:
    first, second = await tasks.create(), await tasks.create(concurrency_key="k")
    created = await create(tasks, *[NewRun(task_id=task.id) for _ in range(500) for task in (first, second)])
    run_ids = [run_id for run_id, _ in created]
    assert run_ids == sorted(set(run_ids))
    assert await tasks.count(tables.runs) == 1000
    assert len(await tasks.lease(limit=100)) == 100


async def test_within_the_window_the_answer_names_the_earlier_run(tasks: Tasks) -> None:
    task = await tasks.create(dedupe_key="k", dedupe_window_seconds=60)
    other = await tasks.create(dedupe_key="other", dedupe_window_seconds=60)
    (first, *duplicates) = await create(tasks, *[NewRun(task_id=task.id)] * 3, NewRun(task_id=other.id))
    assert not first[1]
    assert duplicates[:2] == [(first[0], True)] * 2
    assert not duplicates[2][1]
    tasks.clock.advance(seconds=59)
    assert await create(tasks, *[NewRun(task_id=task.id)] * 2) == [(first[0], True)] * 2
    tasks.clock.advance(seconds=1)
    ((run_id, duplicate),) = await create(tasks, NewRun(task_id=task.id))
    assert not duplicate
    assert run_id != first[0]


async def refused(tasks: Tasks, error: type[ServiceError], *runs: NewRun) -> ServiceError:
    with pytest.raises(error) as raised:
        await create(tasks, *runs)
    assert await tasks.count(tables.runs) == 0
    return raised.value


async def test_one_that_is_wrong_keeps_all_from_being_queued(tasks: Tasks) -> None:
    good, missing = NewRun(task_id=(await tasks.create()).id), new_id()
    error = await refused(tasks, NotFound, good, good, NewRun(task_id=missing))
    assert (error.reason, error.metadata) == ("TASK_NOT_FOUND", {"task_id": missing})
    assert [violation.field for violation in error.violations] == ["runs[2].task_id"]


async def test_a_paused_task_gets_no_runs(tasks: Tasks) -> None:
    task = await tasks.create()
    paused = tables.tasks.update().values(status="paused", paused_at=tasks.clock.now())
    await tasks.database.transact(lambda connection, clock: connection.execute(paused) and None)
    error = await refused(tasks, FailedPrecondition, NewRun(task_id=task.id))
    assert (error.reason, error.violations[0].field) == ("TASK_NOT_ACTIVE", "runs[0].task_id")


async def test_a_completed_task_may_still_be_run(tasks: Tasks) -> None:
    task = await tasks.create()
    completed = tables.tasks.update().values(status="completed")
    await tasks.database.transact(lambda connection, clock: connection.execute(completed) and None)
    assert len(await create(tasks, NewRun(task_id=task.id))) == 1


async def test_all_parameters_that_are_too_large_are_named(tasks: Tasks) -> None:
    task = await tasks.create()
    large = NewRun(task_id=task.id, params=to_struct({"text": "x" * 1024 * 1024}))
    error = await refused(tasks, InvalidArgument, large, NewRun(task_id=task.id), large)
    assert [violation.field for violation in error.violations] == ["runs[0].params", "runs[2].params"]


async def test_only_the_owner_or_an_admin_queues_runs(tasks: Tasks) -> None:
    task = await tasks.create()
    request = CreateRunsRequest(runs=[NewRun(task_id=task.id)])
    stranger = RunServiceStub(tasks.channel(["tasks:write"], agent_id=new_id()))
    with pytest.raises(PermissionDenied) as raised:
        await stranger.CreateRuns(request)
    assert raised.value.reason == "TASK_OF_ANOTHER_AGENT"
    admin = RunServiceStub(tasks.channel(["admin"], agent_id=new_id()))
    (created,) = (await admin.CreateRuns(request)).runs
    assert (await tasks.run(created.run_id)).created_by == task.created_by


async def test_a_repeated_request_queues_once(tasks: Tasks) -> None:
    task = await tasks.create()
    runs = [NewRun(task_id=task.id)] * 3
    assert await create(tasks, *runs, request_id="once") == await create(tasks, *runs, request_id="once")
    assert await tasks.count(tables.runs) == 3


@one_engine
@pytest.mark.parametrize(
    ("runs", "field"),
    [
        ([], "runs"),
        ([NewRun(task_id="7")], "runs[0].task_id"),
        ([NewRun(task_id=new_id(), priority=10)], "runs[0].priority"),
        ([NewRun(task_id=new_id())] * 1001, "runs"),
    ],
)
async def test_a_bad_field_is_named(tasks: Tasks, runs: list[NewRun], field: str) -> None:
    error = await refused(tasks, InvalidArgument, *runs)
    assert [violation.field for violation in error.violations] == [field]

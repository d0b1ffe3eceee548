"""What is done in the course of a run counts as one deeper, and only while somebody works on the run."""

from typing import Any

import pytest
from baton.tasks.v1.event_service_pb2 import GetEventRequest
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.task_service_pb2 import RunTaskNowRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.work_service_pb2 import LeasedRun

from services.chassis.errors import FailedPrecondition
from tests.integration.tasks.events import event_request, publisher, waiting_for
from tests.integration.tasks.running import Tasks

MAX_DEPTH = 8


def in_course_of(tasks: Tasks, run: LeasedRun, *scopes: str) -> Any:
    """The channel of a worker that acts for the run's owner."""
    return tasks.channel(scopes, agent_id=run.created_by, run_id=run.lease.run_id)


async def leased_run(tasks: Tasks) -> LeasedRun:
    task = await tasks.create()
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    return leased


async def depth_of(tasks: Tasks, event_id: str) -> int:
    return (await publisher(tasks).GetEvent(GetEventRequest(event_id=event_id))).event.depth


async def test_an_event_of_a_run_is_one_deeper_than_what_made_the_run(tasks: Tasks) -> None:
    await waiting_for(tasks, "first")
    leased = await leased_run(tasks)
    told = await EventServiceStub(in_course_of(tasks, leased, "events:publish")).PublishEvent(event_request("first"))
    assert await depth_of(tasks, told.details.event_id) == 1
    (heard,) = await tasks.lease()
    again = await EventServiceStub(in_course_of(tasks, heard, "events:publish")).PublishEvent(event_request("second"))
    assert await depth_of(tasks, again.details.event_id) == 2


async def test_runs_that_start_runs_are_cut(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    for _ in range(MAX_DEPTH):
        stub = TaskServiceStub(in_course_of(tasks, leased, "tasks:write"))
        await stub.RunTaskNow(RunTaskNowRequest(task_id=leased.task_id))
        (leased,) = await tasks.lease()
    stub = TaskServiceStub(in_course_of(tasks, leased, "tasks:write"))
    with pytest.raises(FailedPrecondition) as refused:
        await stub.RunTaskNow(RunTaskNowRequest(task_id=leased.task_id))
    assert refused.value.reason == "LOOP_CUT"
    assert await tasks.lease() == []


async def test_a_try_again_publishes_and_starts_nothing_twice(tasks: Tasks) -> None:
    first = await leased_run(tasks)
    publish, start = (
        event_request("first", request_id="run:tell"),
        RunTaskNowRequest(task_id=first.task_id, request_id="run:start"),
    )
    events, starts = [], []
    for _ in range(2):
        channel = in_course_of(tasks, first, "events:publish", "tasks:write")
        events.append((await EventServiceStub(channel).PublishEvent(publish)).details.event_id)
        starts.append((await TaskServiceStub(channel).RunTaskNow(start)).details.run_id)
    assert events[0] == events[1]
    assert starts[0] == starts[1]
    assert [run.lease.run_id for run in await tasks.lease(limit=10)] == starts[:1]


async def test_nothing_more_is_made_of_a_run_that_was_lost(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.finish(leased.lease)
    channel = in_course_of(tasks, leased, "events:publish", "tasks:write")
    for call in (
        EventServiceStub(channel).PublishEvent(event_request("first")),
        TaskServiceStub(channel).RunTaskNow(RunTaskNowRequest(task_id=leased.task_id)),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await call
        assert refused.value.reason == "RUN_NOT_IN_PROGRESS"
    assert await tasks.lease() == []

"""Who may change a task: its owner, and `admin`."""

from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub

from services.chassis.errors import PermissionDenied
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import PAUSED, every_ten_minutes, read
from tests.integration.tasks.running import Tasks

CHANGING: dict[str, Any] = {
    "UpdateTask": lambda task_id: pb.UpdateTaskRequest(task_id=task_id, title="mine"),
    "UpdateTask to paused": lambda task_id: pb.UpdateTaskRequest(task_id=task_id, status=PAUSED),
    "UpdateTask to nothing": lambda task_id: pb.UpdateTaskRequest(task_id=task_id),
    "RunTaskNow": lambda task_id: pb.RunTaskNowRequest(task_id=task_id),
    "SnoozeTask": lambda task_id: pb.SnoozeTaskRequest(task_id=task_id, delay_seconds=60),
    "PauseTask": lambda task_id: pb.PauseTaskRequest(task_id=task_id),
    "ResumeTask": lambda task_id: pb.ResumeTaskRequest(task_id=task_id),
    "CancelTask": lambda task_id: pb.CancelTaskRequest(task_id=task_id),
}
READING: dict[str, Any] = {
    "GetTask": lambda task_id: pb.GetTaskRequest(task_id=task_id),
    "ListOccurrences": lambda task_id: pb.ListOccurrencesRequest(task_id=task_id),
}


async def call(stub: TaskServiceStub, name: str, task_id: str) -> Any:
    request = (CHANGING | READING)[name](task_id)
    return await getattr(stub, name.partition(" ")[0])(request)


@pytest.mark.parametrize("name", CHANGING)
async def test_nobody_changes_the_task_of_another_agent(tasks: Tasks, name: str) -> None:
    task = await every_ten_minutes(tasks)
    other = TaskServiceStub(tasks.channel(["tasks:read", "tasks:write", "runs:work", "agents:admin"]))
    with pytest.raises(PermissionDenied, match=task.id) as refused:
        await call(other, name, task.id)
    assert (refused.value.reason, refused.value.metadata) == ("TASK_OF_ANOTHER_AGENT", {"task_id": task.id})
    assert await read(tasks, task.id) == task
    assert await tasks.count(tables.runs) == 0
    # Who may not change it does not learn from another refusal what state it is in.
    await call(tasks.tasks, "CancelTask", task.id)
    with pytest.raises(PermissionDenied):
        await call(other, name, task.id)


@pytest.mark.parametrize("name", CHANGING)
async def test_the_owner_and_admin_change_it(tasks: Tasks, name: str) -> None:
    admin = TaskServiceStub(tasks.channel(["admin"]))
    for stub in (tasks.tasks, admin):
        task = await every_ten_minutes(tasks)
        await call(stub, name, task.id)


@pytest.mark.parametrize("name", READING)
async def test_everybody_with_the_scope_reads_it(tasks: Tasks, name: str) -> None:
    task = await every_ten_minutes(tasks)
    await call(TaskServiceStub(tasks.channel(["tasks:read"])), name, task.id)


async def test_a_task_that_admin_made_for_somebody_is_theirs(tasks: Tasks) -> None:
    mine = await tasks.create()
    admin = TaskServiceStub(tasks.channel(["admin"]))
    payload = mine.payload
    theirs = (
        await admin.CreateTask(
            pb.CreateTaskRequest(
                title="for you",
                schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL,
                payload=payload,
                created_by=mine.created_by,
            )
        )
    ).task
    await call(tasks.tasks, "UpdateTask", theirs.id)
    assert (await read(tasks, theirs.id)).title == "mine"

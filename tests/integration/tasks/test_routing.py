"""Work that is handed to whoever has a role."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.routing_service_pb2 import NotifyRequest, RouteTaskRequest, RouteTaskResponse
from baton.tasks.v1.routing_service_pb2_grpc import RoutingServiceStub
from baton.tasks.v1.run_service_pb2 import RetryRunRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from baton.tasks.v1.task_service_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    UpdateTaskRequest,
)
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.work_service_pb2 import Lease, LeasedRun, RunAwaitsApproval, RunFailed, RunReport

from services.chassis.errors import Aborted, InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.running import Tasks, one_engine

REFUSED = run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_VALIDATION}, message="no such address")
WORDS = {
    "pending": task_pb2.TASK_STATUS_PENDING,
    "active": task_pb2.TASK_STATUS_ACTIVE,
    "completed": task_pb2.TASK_STATUS_COMPLETED,
    "failed": task_pb2.TASK_STATUS_FAILED,
    "cancelled": task_pb2.TASK_STATUS_CANCELED,
}


def work(description: str = "Tell the team", **fields: Any) -> RouteTaskRequest:
    """Work for the role `mailer`, with a key of its own."""
    given: dict[str, Any] = {
        "target": "mailer",
        "task": {"task_type": "notification", "description": description, "data": to_struct({"to": ["a", "b"]})},
        "context": to_struct({"thread": 7}),
        "request_id": str(uuid4()),
    }
    return RouteTaskRequest(**given | fields)


async def route(tasks: Tasks, request: RouteTaskRequest, agent_id: str | None = None) -> RouteTaskResponse:
    channel = tasks.channel(["tasks:write"], agent_id=agent_id)
    return await RoutingServiceStub(channel).RouteTask(request)


async def task_of(tasks: Tasks, task_id: str) -> task_pb2.Task:
    return (await tasks.tasks.GetTask(GetTaskRequest(task_id=task_id))).task


async def listed(tasks: Tasks, **fields: Any) -> ListTasksResponse:
    return await tasks.tasks.ListTasks(ListTasksRequest(**fields))


async def standing(tasks: Tasks, word: str, **fields: Any) -> list[str]:
    """The descriptions of the work for `mailer` that stands so, newest first."""
    found = await listed(tasks, target="mailer", status=[WORDS[word]], **fields)
    return [task.description for task in found.items]


async def leased(tasks: Tasks, **fields: Any) -> LeasedRun:
    (run,) = await tasks.lease(role="mailer", **fields)
    return run


async def fail(tasks: Tasks, lease: Lease) -> None:
    assert await tasks.report(RunReport(lease=lease, failed=RunFailed(error=REFUSED))) == [True]


async def retry(tasks: Tasks, run_id: str) -> str:
    """Has a run done anew, by somebody who may retry anybody's; answers the new one's id."""
    stub = RunServiceStub(tasks.channel(["admin"]))
    return (await stub.RetryRun(RetryRunRequest(run_id=run_id))).run.id


async def test_routed_work_is_a_task_and_a_run_for_its_role(tasks: Tasks) -> None:
    caller = new_id()
    answer = await route(tasks, work("x" * 300), agent_id=caller)
    assert answer.status == task_pb2.TASK_STATUS_PENDING
    task = await task_of(tasks, answer.task_id)
    assert (task.title, task.description) == ("x" * 200, "x" * 300)
    assert (task.role, task.target, task.created_by) == ("mailer", "mailer", caller)
    assert (task.schedule_kind, task.status) == (task_pb2.SCHEDULE_KIND_MANUAL, task_pb2.TASK_STATUS_ACTIVE)
    assert from_struct(task.payload) == {
        "pipeline": [],
        "params": {
            "task_type": "notification", "description": "x" * 300, "data": {"to": ["a", "b"]}, "context": {"thread": 7},
        },
    }  # fmt: skip
    assert await tasks.lease() == []
    run = await leased(tasks)
    assert (run.task_id, run.payload) == (task.id, task.payload)


async def test_what_may_be_left_out_is_empty(tasks: Tasks) -> None:
    bare = RouteTaskRequest(
        target="mailer", task={"task_type": "routing", "description": "Go"}, request_id=str(uuid4())
    )
    task = await task_of(tasks, (await route(tasks, bare)).task_id)
    params = from_struct(task.payload)["params"]
    assert params == {"task_type": "routing", "description": "Go", "data": {}, "context": {}}


async def test_a_notification_is_routed_work(tasks: Tasks) -> None:
    caller = new_id()
    request = NotifyRequest(target="mailer", message="y" * 300, data=to_struct({"n": 1}), request_id="once")
    stub = RoutingServiceStub(tasks.channel(["tasks:write"], agent_id=caller))
    answer = await stub.Notify(request)
    assert await stub.Notify(request) == answer
    assert answer.status == task_pb2.TASK_STATUS_PENDING
    task = await task_of(tasks, answer.task_id)
    assert (task.title, task.description, task.role, task.created_by) == ("y" * 200, "y" * 300, "mailer", caller)
    run = await leased(tasks)
    assert from_struct(run.payload)["params"] == {
        "task_type": "notification", "description": "y" * 300, "data": {"n": 1}, "context": {},
    }  # fmt: skip
    (entry,) = await audited_changes(tasks)
    assert (entry["action"], entry["actor"], entry["request_id"]) == ("task.route", caller, "once")
    with pytest.raises(InvalidArgument) as refused:
        await stub.Notify(NotifyRequest(target="mailer", message="x", data=to_struct(nested(29))))
    assert [fault.field for fault in refused.value.violations] == ["data"]


async def test_routing_is_audited_with_its_run(tasks: Tasks) -> None:
    caller, request = new_id(), work()
    answer = await route(tasks, request, agent_id=caller)
    (entry,) = await audited_changes(tasks)
    run = await leased(tasks)
    assert (entry["action"], entry["actor"], entry["resource"]) == ("task.route", caller, f"task/{answer.task_id}")
    assert entry["after"] == {"target": "mailer", "task_type": "notification", "run_id": run.lease.run_id}
    assert entry["request_id"] == request.request_id


async def test_one_key_hands_work_over_once(tasks: Tasks) -> None:
    caller, request = new_id(), work()
    first = await route(tasks, request, agent_id=caller)
    assert await route(tasks, request, agent_id=caller) == first
    assert [await tasks.count(table) for table in (tables.tasks, tables.runs, tables.outbox)] == [1, 1, 1]
    with pytest.raises(InvalidArgument) as refused:
        await route(tasks, work("Something else", request_id=request.request_id), agent_id=caller)
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # The key is its caller's: somebody else's request is another one.
    assert (await route(tasks, request, agent_id=new_id())).task_id != first.task_id
    assert [await tasks.count(table) for table in (tables.tasks, tables.runs, tables.outbox)] == [2, 2, 2]


async def test_requests_with_one_key_at_once_make_one_task(tasks: Tasks) -> None:
    caller, request = new_id(), work()
    answers = await asyncio.gather(*(route(tasks, request, agent_id=caller) for _ in range(8)), return_exceptions=True)
    done = {answer.task_id for answer in answers if isinstance(answer, RouteTaskResponse)}
    others = [answer for answer in answers if not isinstance(answer, RouteTaskResponse)]
    assert len(done) == 1
    assert all(isinstance(other, Aborted) and other.reason == "IDEMPOTENCY_KEY_IN_FLIGHT" for other in others)
    assert [await tasks.count(table) for table in (tables.tasks, tables.runs)] == [1, 1]


@one_engine
@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"request_id": ""}, ["request_id"]),
        ({"request_id": "my-key"}, ["request_id"]),
        ({"target": ""}, ["target"]),
        ({"target": "x" * 51}, ["target"]),
        ({"target": "the mailer"}, ["target"]),
        ({"task": None}, ["task"]),
        ({"task": {"task_type": "", "description": ""}}, ["task.task_type", "task.description"]),
        ({"task": {"task_type": "Notification", "description": "x"}}, ["task.task_type"]),
        ({"task": {"task_type": "x" * 51, "description": "x" * 2001}}, ["task.task_type", "task.description"]),
    ],
)
async def test_a_fault_is_named_and_stores_nothing(tasks: Tasks, fields: dict[str, Any], faulty: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await route(tasks, work(**fields))
    assert [violation.field for violation in refused.value.violations] == faulty
    assert [await tasks.count(table) for table in (tables.tasks, tables.runs, tables.outbox)] == [0, 0, 0]


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


@one_engine
async def test_data_and_context_have_the_limits_of_a_payload(tasks: Tasks) -> None:
    def data(value: dict[str, Any]) -> dict[str, Any]:
        return {"task": {"task_type": "routing", "description": "x", "data": to_struct(value)}}

    await route(tasks, work(**data(nested(28)), context=to_struct(nested(28))))
    for fields, field in (
        (data(nested(29)), "task.data"),
        ({"context": to_struct(nested(29))}, "context"),
        (data({"text": "x" * 1024 * 1024}), "task.data"),
        ({"context": to_struct({"text": "x" * 1024 * 1024})}, "context"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await route(tasks, work(**fields))
        assert [violation.field for violation in refused.value.violations] == [field]
    assert await tasks.count(tables.tasks) == 1


async def test_a_task_tells_how_its_newest_run_stands(tasks: Tasks) -> None:
    answer = await route(tasks, work())

    async def last() -> tuple[str, int]:
        run = (await task_of(tasks, answer.task_id)).last_run
        return run.id, run.status

    held = await leased(tasks)
    run_id = held.lease.run_id
    assert await last() == (run_id, run_pb2.RUN_STATUS_RUNNING)
    await fail(tasks, held.lease)
    assert await last() == (run_id, run_pb2.RUN_STATUS_FAILED)
    again = await retry(tasks, run_id)
    assert await last() == (again, run_pb2.RUN_STATUS_QUEUED)
    assert not (await task_of(tasks, (await tasks.create()).id)).HasField("last_run")


async def test_work_is_found_by_how_it_stands(tasks: Tasks) -> None:
    for word in ("active", "completed", "failed", "asked", "deferred", "waiting"):
        await route(tasks, work(word))
        tasks.clock.advance(seconds=1)
    canceled = await route(tasks, work("cancelled"))
    await route(tasks, work("of others", target="planner"))
    runs = {run.task: run.lease for run in await tasks.lease(role="mailer", limit=5)}
    assert await tasks.finish(runs["completed"])
    await fail(tasks, runs["failed"])
    ask = RunAwaitsApproval(step_id="send", action=to_struct({"tool": "mail"}))
    deferral = {"error": REFUSED, "wait": {"seconds": 60}}
    await tasks.report(
        RunReport(lease=runs["asked"], awaiting_approval=ask), RunReport(lease=runs["deferred"], deferred=deferral)
    )
    admin = TaskServiceStub(tasks.channel(["admin"]))
    await admin.CancelTask(CancelTaskRequest(task_id=canceled.task_id))
    assert await standing(tasks, "pending") == ["waiting", "deferred", "asked"]
    for word in ("active", "completed", "failed", "cancelled"):
        assert await standing(tasks, word) == [word]
    both = await listed(tasks, target="mailer", status=[WORDS["failed"], WORDS["active"]])
    assert [task.description for task in both.items] == ["failed", "active"]
    assert not both.HasField("total")
    everything = await listed(tasks, target="mailer")
    assert (len(everything.items), everything.total) == (7, 7)
    assert [task.description for task in (await listed(tasks, role=["planner", "nobody"])).items] == ["of others"]


async def test_work_that_is_done_anew_stands_as_its_newest_run_does(tasks: Tasks) -> None:
    await route(tasks, work("retried"))
    await route(tasks, work("failed"))
    for held in await tasks.lease(role="mailer", limit=2):
        await fail(tasks, held.lease)
    failed, retried = (await listed(tasks, target="mailer")).items
    await retry(tasks, (await task_of(tasks, retried.id)).last_run.id)
    assert (await standing(tasks, "failed"), await standing(tasks, "pending")) == (["failed"], ["retried"])
    held = await leased(tasks)
    assert (await standing(tasks, "pending"), await standing(tasks, "active")) == ([], ["retried"])
    assert await tasks.finish(held.lease)
    assert (await standing(tasks, "completed"), await standing(tasks, "failed")) == (["retried"], ["failed"])
    assert failed.description == "failed"


async def test_pages_of_work_go_on_where_they_ended(tasks: Tasks) -> None:
    for number in range(5):
        await route(tasks, work(str(number)))
    held = await leased(tasks)
    first = await listed(tasks, target="mailer", status=[WORDS["pending"]], limit=3)
    assert (len(first.items), first.has_more) == (3, True)
    rest = await listed(tasks, target="mailer", status=[WORDS["pending"]], limit=3, cursor=first.next_cursor)
    assert (len(rest.items), rest.has_more) == (1, False)
    seen = {task.id for page in (first, rest) for task in page.items}
    assert len(seen) == 4
    assert held.task_id not in seen
    with pytest.raises(InvalidArgument) as refused:
        await listed(tasks, target="mailer", status=[WORDS["failed"]], cursor=first.next_cursor)
    assert refused.value.reason == "CURSOR_INVALID"


async def test_a_role_is_that_of_the_task_and_not_of_its_run(tasks: Tasks) -> None:
    answer = await route(tasks, work("moved"))
    admin = TaskServiceStub(tasks.channel(["admin"]))
    await admin.UpdateTask(UpdateTaskRequest(task_id=answer.task_id, role="planner"))
    assert await standing(tasks, "pending") == []
    moved = await listed(tasks, target="planner", status=[WORDS["pending"]])
    assert [task.description for task in moved.items] == ["moved"]


@one_engine
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": "mailer", "status": [1, 2]}, "pending, active, completed, failed, canceled, with a target"),
        ({"status": [1, WORDS["pending"]]}, "active, paused, canceled, completed, without a target"),
        ({"status": [1, WORDS["failed"]]}, "active, paused, canceled, completed, without a target"),
    ],
)
async def test_a_status_has_to_fit_what_is_asked_for(tasks: Tasks, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await listed(tasks, **fields)
    (violation,) = refused.value.violations
    assert (violation.field, violation.description) == ("status[1]", f"must be one of {words}")

"""Runs whose budget is used up are kept back, and called off before their next step; what runs use is told."""

from datetime import timedelta
from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import ExplainRunRequest
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest, RunTaskNowRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.work_service_pb2 import (
    LeaseRunsRequest,
    RenewRunsRequest,
    RunFailed,
    RunReport,
    RunSucceeded,
)
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from sqlalchemy import select

from services.chassis.errors import InvalidArgument, ResourceExhausted
from services.chassis.ids import id_at, new_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.operations.budget import ASKED_AGAIN
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks, task_request
from tests.integration.tasks.work import failed_step, step

REASON = "budget b of agent a: 3 of 2 tokens"


async def tell(tasks: Tasks, kind: str, subject_id: str, *, blocked: bool = True, **fields: Any) -> OutboxMessage:
    """The sessions service says how somebody stands."""
    told = {"kind": kind, "id": subject_id, "is_blocked": blocked, "reason": REASON}
    return await say(tasks, {"blocked_until": None, "is_counted": False} | told | fields)


async def say(tasks: Tasks, told: dict[str, Any]) -> OutboxMessage:
    tasks.clock.advance(milliseconds=1)
    now = tasks.clock.now()
    message = OutboxMessage(id=id_at(now), topic="budget", payload=orjson.dumps(told), created_at=to_timestamp(now))
    await deliver(tasks, message)
    return message


async def deliver(tasks: Tasks, message: OutboxMessage) -> None:
    inbox = InboxServiceStub(tasks.channel(["messages:deliver"]))
    await inbox.DeliverMessages(DeliverMessagesRequest(source="sessions", messages=[message]))


async def queued(tasks: Tasks, agent_id: str, **fields: Any) -> tuple[str, str]:
    """A task of an agent and a run of it, by their ids."""
    stub = TaskServiceStub(tasks.channel(["tasks:write"], agent_id=agent_id))
    task: task_pb2.Task = (await stub.CreateTask(CreateTaskRequest.FromString(
        task_request(**fields).SerializeToString()
    ))).task  # fmt: skip
    return task.id, (await stub.RunTaskNow(RunTaskNowRequest(task_id=task.id))).details.run_id


async def leased(tasks: Tasks, agent_id: str | None = None, limit: int = 10) -> list[str]:
    work = WorkServiceStub(tasks.channel(["runs:work"], agent_id=agent_id))
    answer = await work.LeaseRuns(LeaseRunsRequest(worker_id=new_id(), limit=limit))
    return [run.lease.run_id for run in answer.runs]


async def usage(tasks: Tasks) -> list[dict[str, Any]]:
    query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == "usage").order_by(tables.outbox.c.id)
    return await tasks.database.read(lambda connection, clock: list(connection.execute(query).scalars()))


@pytest.mark.parametrize("kind", ["agent", "task"])
async def test_what_is_over_its_budget_is_passed_over_and_others_are_not(tasks: Tasks, kind: str) -> None:
    blocked, other = new_id(), new_id()
    task_id, run_id = await queued(tasks, blocked, priority=1, concurrency_key="printer")
    _, free = await queued(tasks, other, priority=9)
    await tell(tasks, kind, blocked if kind == "agent" else task_id)
    assert await leased(tasks) == [free]
    kept = await tasks.run(run_id)
    assert (kept.status, kept.attempt) == (run_pb2.RUN_STATUS_QUEUED, 0)
    assert from_timestamp(kept.due_at) == tasks.clock.now() + ASKED_AGAIN
    answer = await tasks.runs.ExplainRun(ExplainRunRequest(run_id=run_id))
    assert [blocker.code for blocker in answer.blockers] == ["budget_exceeded"]
    assert REASON in answer.blockers[0].message
    assert from_struct(answer.blockers[0].evidence)["error"]["class"] == "budget_exceeded"
    # The line of its key is not held by it.
    _, next_in_line = await queued(tasks, other, concurrency_key="printer")
    (run,) = await tasks.lease(limit=10)
    assert run.lease.run_id == next_in_line
    await tell(tasks, kind, blocked if kind == "agent" else task_id, blocked=False)
    await tasks.finish(run.lease)
    tasks.clock.advance(seconds=ASKED_AGAIN.total_seconds())
    assert await leased(tasks) == [run_id]
    assert (await tasks.run(run_id)).attempt == 1


async def test_a_block_ends_with_its_period(tasks: Tasks) -> None:
    owner = new_id()
    _, run_id = await queued(tasks, owner)
    until = tasks.clock.now() + timedelta(seconds=20)
    await tell(tasks, "agent", owner, blocked_until=until.isoformat())
    assert await leased(tasks) == []
    assert from_timestamp((await tasks.run(run_id)).due_at) == until
    tasks.clock.advance(seconds=20)
    assert await leased(tasks) == [run_id]


async def test_an_agent_that_is_over_its_budget_leases_nothing(tasks: Tasks) -> None:
    agent_id = new_id()
    await tell(tasks, "agent", agent_id)
    assert await leased(tasks, agent_id) == []
    _, run_id = await queued(tasks, new_id())
    with pytest.raises(ResourceExhausted, match=REASON) as refused:
        await leased(tasks, agent_id)
    assert (refused.value.reason, refused.value.retry_after) == ("BUDGET_EXCEEDED", 60)
    assert (await tasks.run(run_id)).attempt == 0
    assert await leased(tasks) == [run_id]


async def test_a_long_queue_of_what_is_kept_back_does_not_keep_others_waiting(tasks: Tasks) -> None:
    owner = new_id()
    task_id, _ = await queued(tasks, owner, priority=1)
    await tasks.queue_runs(task_id, 150)
    _, free = await queued(tasks, new_id(), priority=9)
    await tell(tasks, "agent", owner)
    assert await leased(tasks) == [free]


async def test_what_is_under_way_is_called_off(tasks: Tasks) -> None:
    owner, worker = new_id(), new_id()
    _, own = await queued(tasks, owner)
    _, waiting = await queued(tasks, owner)
    (run,) = await tasks.lease()
    _, others = await queued(tasks, new_id(), priority=1)
    work = WorkServiceStub(tasks.channel(["runs:work"], agent_id=worker))
    (done_by_worker,) = (await work.LeaseRuns(LeaseRunsRequest(worker_id=new_id(), limit=1))).runs
    assert (run.lease.run_id, done_by_worker.lease.run_id) == (own, others)
    for agent_id in (owner, worker):
        message = await tell(tasks, "agent", agent_id)
    renewed = await tasks.work.RenewRuns(RenewRunsRequest(leases=[run.lease, done_by_worker.lease]))
    assert [one.cancel_requested for one in renewed.leases] == [True, True]
    failed = RunFailed(error=run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_CANCELED}, message="stopped"))
    assert await tasks.report(RunReport(lease=run.lease, failed=failed)) == [True]
    ended = await tasks.run(own)
    assert (ended.status, getattr(ended.error, "class")) == (
        run_pb2.RUN_STATUS_CANCELED,
        run_pb2.ERROR_CLASS_BUDGET_EXCEEDED,
    )
    assert ended.error.message == REASON
    assert (await tasks.run(waiting)).status == run_pb2.RUN_STATUS_QUEUED
    # What was said before what is known says nothing.
    await tell(tasks, "agent", worker, blocked=False)
    await deliver(tasks, message)
    assert await leased(tasks, worker) == []  # all that waits is the owner's, and kept back


async def test_what_runs_use_is_told_of_those_who_are_counted(tasks: Tasks) -> None:
    counted, other = new_id(), new_id()
    task_id, run_id = await queued(tasks, counted)
    await queued(tasks, other)
    steps = [step(0, id="a", duration_ms=5), step(1, id="b", duration_ms=7, tries=2)]
    assert await usage(tasks) == []
    await tell(tasks, "agent", counted, blocked=False, is_counted=True)
    for run in await tasks.lease(limit=2):
        assert await tasks.report(RunReport(lease=run.lease, steps=steps)) == [True]
        skipped = [step(2, id="c", status=run_pb2.STEP_STATUS_SKIPPED)]
        assert await tasks.report(RunReport(lease=run.lease, steps=skipped, succeeded=RunSucceeded())) == [True]
    assert await usage(tasks) == [
        {"agent_id": counted, "task_id": task_id, "run_id": run_id, "tool_calls": 3, "wall_time_ms": 12}
    ]


async def test_what_is_reported_again_is_counted_once(tasks: Tasks) -> None:
    owner = new_id()
    await queued(tasks, owner)
    await tell(tasks, "agent", owner, blocked=False, is_counted=True)
    (run,) = await tasks.lease()
    steps = [
        step(0, duration_ms=5),
        failed_step(1, duration_ms=7, tries=2),
        step(2, item=0, duration_ms=11),
        failed_step(2, item=1, duration_ms=13, finished_at=None),
    ]
    report = RunReport(lease=run.lease, steps=steps)
    assert await tasks.report(report) == [True]
    tasks.clock.advance(seconds=1)
    assert await tasks.report(report) == [True]
    # What is told along with what is known is new all the same, and so is a step that failed and is done again.
    more = [*steps[:3], step(1, duration_ms=17), failed_step(2, item=1, tries=2, duration_ms=19)]
    assert await tasks.report(RunReport(lease=run.lease, steps=more)) == [True]
    assert [(one["tool_calls"], one["wall_time_ms"]) for one in await usage(tasks)] == [(5, 36), (3, 36)]


async def test_what_is_refused_is_not_counted(tasks: Tasks) -> None:
    owner = new_id()
    await queued(tasks, owner)
    await tell(tasks, "agent", owner, blocked=False, is_counted=True)
    (run,) = await tasks.lease()
    ends = RunReport(lease=run.lease, steps=[step(0)], succeeded=RunSucceeded())
    assert await tasks.report(ends, RunReport(lease=run.lease, steps=[step(1)])) == [True, False]
    assert await tasks.report(ends) == [False]
    assert [one["tool_calls"] for one in await usage(tasks)] == [1]


@pytest.mark.parametrize("wrong", [{"kind": "session"}, {"id": "x"}, {"is_blocked": 1}, {"blocked_until": 3}])
async def test_a_message_that_says_something_else_is_refused(tasks: Tasks, wrong: dict[str, Any]) -> None:
    good = {
        "kind": "agent",
        "id": new_id(),
        "is_blocked": True,
        "blocked_until": None,
        "is_counted": True,
        "reason": "",
    }
    with pytest.raises(InvalidArgument):
        await say(tasks, good | {"reason": ""} | wrong)
    assert await tasks.count(tables.budget_standings) == 0

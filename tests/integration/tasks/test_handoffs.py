"""Work that workflows hand to a role: one task with one run for each hand-off, of whose end they are told."""

from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import RetryRunRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from baton.tasks.v1.task_service_pb2 import GetTaskRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.work_service_pb2 import (
    LeasedRun,
    LeaseRunsRequest,
    RenewRunsRequest,
    ReportRunsRequest,
    RunFailed,
    RunReport,
    RunSucceeded,
)
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from sqlalchemy import func, select

from services.chassis.errors import InvalidArgument
from services.chassis.ids import id_at, new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ASKER = new_id()


def handed(handoff_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": handoff_id,
        "role": "editor",
        "description": "It is read.",
        "data": {"previous_phase_output": {"text": "once"}},
        "context": {"workflow_id": new_id(), "state": "review"},
        "asked_by": ASKER,
        "traceparent": TRACEPARENT,
    } | fields


async def tell(tasks: Tasks, *told: dict[str, Any], times: int = 1) -> None:
    now = tasks.clock.now()
    messages = [
        OutboxMessage(id=id_at(now), topic="handoff", payload=orjson.dumps(one), created_at=to_timestamp(now))
        for one in told
    ]
    inbox = InboxServiceStub(tasks.channel(["messages:deliver"]))
    for _ in range(times):
        await inbox.DeliverMessages(DeliverMessagesRequest(source="workflows", messages=messages))


async def leased(tasks: Tasks, agent_id: str) -> list[LeasedRun]:
    work = WorkServiceStub(tasks.channel(["runs:work"], agent_id=agent_id))
    return list((await work.LeaseRuns(LeaseRunsRequest(worker_id=new_id(), role="editor", limit=10))).runs)


async def report(tasks: Tasks, run: LeasedRun, **outcome: Any) -> None:
    work = WorkServiceStub(tasks.channel(["runs:work"]))
    await work.ReportRuns(ReportRunsRequest(reports=[RunReport(lease=run.lease, **outcome)]))


async def reported(tasks: Tasks) -> list[dict[str, Any]]:
    query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == "report").order_by(tables.outbox.c.id)
    return await tasks.database.read(lambda connection, clock: list(connection.execute(query).scalars()))


async def task(tasks: Tasks, task_id: str) -> task_pb2.Task:
    stub = TaskServiceStub(tasks.channel(["tasks:read"]))
    return (await stub.GetTask(GetTaskRequest(task_id=task_id))).task


async def live(tasks: Tasks) -> int:
    query = select(func.count()).select_from(tables.runs)
    return await tasks.database.read(lambda connection, clock: connection.execute(query).scalar_one())


async def test_a_handoff_is_one_run_however_often_it_is_told(tasks: Tasks) -> None:
    handoff_id, agent = new_id(), new_id()
    await tell(tasks, handed(handoff_id), times=3)
    (run,) = await leased(tasks, agent)
    params = from_struct(run.payload)["params"]
    assert (params["task_type"], params["description"]) == ("handoff", "It is read.")
    assert params["data"] == {"previous_phase_output": {"text": "once"}}
    assert run.traceparent == TRACEPARENT
    made = await task(tasks, handoff_id)
    assert (made.role, made.created_by) == ("editor", ASKER)
    await report(tasks, run, succeeded=RunSucceeded(output=to_struct({"phase_result": {"ok": True}})))
    (told,) = await reported(tasks)
    assert isinstance(told.pop("traceparent"), str)
    assert told == {
        "id": handoff_id,
        "run_id": run.lease.run_id,
        "agent_id": agent,
        "status": "succeeded",
        "output": {"phase_result": {"ok": True}},
        "error": "",
    }
    # Told again when all is over, it is still one.
    await tell(tasks, handed(handoff_id))
    assert await live(tasks) == 0


async def test_a_failure_is_told_and_so_is_what_a_retry_comes_to(tasks: Tasks) -> None:
    handoff_id = new_id()
    await tell(tasks, handed(handoff_id))
    (run,) = await leased(tasks, new_id())
    error = run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_VALIDATION, "message": "no ink"})
    await report(tasks, run, failed=RunFailed(error=error))
    assert [(one["status"], one["error"]) for one in await reported(tasks)] == [("failed", "no ink")]
    runs = RunServiceStub(tasks.channel(["tasks:write"], agent_id=ASKER))
    await runs.RetryRun(RetryRunRequest(run_id=run.lease.run_id))
    (again,) = await leased(tasks, new_id())
    await report(tasks, again, succeeded=RunSucceeded())
    assert [(one["id"], one["status"]) for one in await reported(tasks)][1:] == [(handoff_id, "succeeded")]


async def test_what_is_taken_back_is_called_off(tasks: Tasks) -> None:
    handoff_id = new_id()
    await tell(tasks, handed(handoff_id))
    await tell(tasks, {"id": handoff_id, "withdrawn": "it is rolled back", "is_done": False}, times=2)
    assert await leased(tasks, new_id()) == []
    assert (await task(tasks, handoff_id)).status == task_pb2.TASK_STATUS_CANCELED
    assert [one["status"] for one in await reported(tasks)] == ["canceled"]
    # One that nobody has heard of, and one that is over, change nothing.
    await tell(tasks, {"id": new_id(), "withdrawn": "why", "is_done": False})


@pytest.mark.parametrize("is_done", [True, False])
async def test_who_works_on_what_is_taken_back_ends_in_peace_when_it_is_done(tasks: Tasks, is_done: bool) -> None:
    handoff_id = new_id()
    await tell(tasks, handed(handoff_id))
    (run,) = await leased(tasks, new_id())
    await tell(tasks, {"id": handoff_id, "withdrawn": "it went on", "is_done": is_done})
    work = WorkServiceStub(tasks.channel(["runs:work"]))
    renewed = await work.RenewRuns(RenewRunsRequest(leases=[run.lease]))
    assert renewed.leases[0].cancel_requested is not is_done
    status = (await task(tasks, handoff_id)).status
    assert (status == task_pb2.TASK_STATUS_CANCELED) is not is_done


@pytest.mark.parametrize("fields", [{"role": 5}, {"id": "x"}, {"data": None}])
async def test_a_message_that_is_no_handoff_is_refused(tasks: Tasks, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await tell(tasks, handed(new_id()) | fields)
    assert await live(tasks) == 0

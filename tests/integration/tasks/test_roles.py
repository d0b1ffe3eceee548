"""Whose runs an agent gets, and what it may leave out when it asks for them and reports them."""

import asyncio
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ListRunStepsRequest
from baton.tasks.v1.work_service_pb2 import (
    Lease,
    LeaseRunsRequest,
    ReportRunsRequest,
    RunAwaitsApproval,
    RunReport,
    UseApprovalRequest,
)
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import select

from services.chassis.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.test_approvals import approve, question
from tests.integration.tasks.work import PROMPTLY, failed_step, step

WORK = ("runs:work",)


def worker(tasks: Tasks, role: str = "", scopes: Any = WORK, agent_id: str | None = None) -> WorkServiceStub:
    """An agent that works as `role`."""
    return WorkServiceStub(tasks.channel(scopes, agent_id=agent_id, role=role))


async def leased(stub: WorkServiceStub, **fields: Any) -> list[str]:
    """The titles of the tasks whose runs an agent gets."""
    return [run.task for run in (await stub.LeaseRuns(LeaseRunsRequest(limit=10, **fields))).runs]


@pytest.fixture
async def queue(tasks: Tasks) -> Tasks:
    """A run of no role, and one for each of two."""
    for role in ("", "mailer", "planner"):
        await tasks.run_now((await tasks.create(title=role or "nobody", role=role)).id)
    return tasks


async def test_an_agent_with_a_role_gets_runs_of_that_role(queue: Tasks) -> None:
    assert await leased(worker(queue, "mailer")) == ["mailer"]
    assert await leased(worker(queue, "planner"), role="planner") == ["planner"]


@pytest.mark.parametrize("asked", ["planner", "mailers"])
async def test_and_of_no_other(queue: Tasks, asked: str) -> None:
    with pytest.raises(PermissionDenied, match="'mailer'") as refused:
        await leased(worker(queue, "mailer"), role=asked)
    assert refused.value.reason == "RUNS_OF_ANOTHER_ROLE"
    assert refused.value.metadata == {"role": asked, "own_role": "mailer"}


async def test_nor_those_of_the_built_in_worker(queue: Tasks) -> None:
    stub = worker(queue, "mailer")
    assert await leased(stub) == ["mailer"]
    assert await leased(stub, role="") == []
    assert await leased(worker(queue, "mailer", ["runs:work", "admin"]), role="") == []


async def test_an_administrator_with_a_role_gets_those_of_any_that_it_names(queue: Tasks) -> None:
    stub = worker(queue, "mailer", ["admin"])
    assert await leased(stub, role="planner") == ["planner"]
    assert await leased(stub) == ["mailer"]


async def test_an_agent_without_a_role_gets_what_it_asks_for(queue: Tasks) -> None:
    stub = worker(queue)
    assert await leased(stub) == ["nobody"]
    assert await leased(stub, role="mailer") == ["mailer"]
    assert await leased(stub, role="planner") == ["planner"]


async def test_an_agent_with_a_role_is_woken_by_its_own_runs(tasks: Tasks, hints_only: None) -> None:
    waiting = asyncio.create_task(leased(worker(tasks, "mailer"), wait_seconds=20))
    await asyncio.wait([waiting], timeout=0.1)
    await tasks.run_now((await tasks.create(title="mailer", role="mailer")).id)
    assert await asyncio.wait_for(waiting, PROMPTLY) == ["mailer"]


async def test_an_agent_that_names_no_worker_is_one_itself(tasks: Tasks) -> None:
    agent_id = new_id()
    run_id = await tasks.run_now((await tasks.create(role="mailer")).id)
    assert await leased(worker(tasks, "mailer", agent_id=agent_id)) == ["a task"]
    run = await tasks.run(run_id)
    assert (run.agent_id, run.lease_owner) == (agent_id, agent_id)
    await tasks.service.attendance.step()
    query = select(tables.workers.c.id, tables.workers.c.role, tables.workers.c.agent_id)
    rows = await tasks.database.read(lambda connection, clock: connection.execute(query).all())
    assert [tuple(row) for row in rows] == [(agent_id, "mailer", agent_id)]


async def test_a_worker_s_id_is_still_its_own(tasks: Tasks) -> None:
    run_id, worker_id = await tasks.run_now((await tasks.create()).id), new_id()
    await leased(worker(tasks), worker_id=worker_id.upper())
    assert (await tasks.run(run_id)).lease_owner == worker_id
    with pytest.raises(InvalidArgument) as refused:
        await leased(worker(tasks), worker_id="me")
    assert [violation.field for violation in refused.value.violations] == ["worker_id"]


async def held(tasks: Tasks) -> Lease:
    """The lease of a run whose pipeline is empty: its agent decides what to do."""
    await tasks.run_now((await tasks.create(role="mailer")).id)
    (run,) = (await worker(tasks, "mailer").LeaseRuns(LeaseRunsRequest())).runs
    assert run.payload.fields["pipeline"].list_value.values == []
    return run.lease


async def steps_of(tasks: Tasks, run_id: str) -> list[run_pb2.RunStep]:
    return list((await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items)


async def report(tasks: Tasks, **fields: Any) -> None:
    await worker(tasks, "mailer").ReportRuns(ReportRunsRequest(reports=[RunReport(**fields)]))


async def test_the_least_that_can_be_said_of_a_step_is_enough(tasks: Tasks) -> None:
    lease = await held(tasks)
    tasks.clock.advance(seconds=3)
    said = run_pb2.RunStep(id="look", uses="shell.ls", status=run_pb2.STEP_STATUS_SUCCEEDED)
    await report(tasks, lease=lease, steps=[said], succeeded={"output": to_struct({"found": 3})})
    (recorded,) = await steps_of(tasks, lease.run_id)
    now = int(tasks.clock.now().timestamp())
    assert (recorded.started_at.seconds, recorded.finished_at.seconds, recorded.duration_ms) == (now, now, 0)
    assert (recorded.position, recorded.attempt, recorded.tries) == (0, 1, 1)
    run = await tasks.run(lease.run_id)
    assert (run.status, run.output) == (run_pb2.RUN_STATUS_SUCCEEDED, to_struct({"found": 3}))


async def test_a_step_at_the_place_of_another_one_is_refused(tasks: Tasks) -> None:
    lease = await held(tasks)
    await report(tasks, lease=lease, steps=[step(0, id="look")])
    # The same step again is none but the same, and a failed one gives its place away.
    await report(tasks, lease=lease, steps=[step(0, id="look"), failed_step(1, id="try")])
    await report(tasks, lease=lease, steps=[step(1, id="other")])
    for steps, faulty, other in (
        ([step(0, id="send")], "reports[0].steps[0].position", "look"),
        ([step(2, id="a"), step(0, id="look"), step(2, id="b")], "reports[0].steps[2].position", "a"),
        ([step(2, id="a"), step(1, id="try")], "reports[0].steps[1].position", "other"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await report(tasks, lease=lease, steps=steps, succeeded={})
        (violation,) = refused.value.violations
        assert (violation.field, other in violation.description) == (faulty, True)
    assert [step.id for step in await steps_of(tasks, lease.run_id)] == ["look", "other"]
    assert (await tasks.run(lease.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_an_agent_asks_with_an_action_and_shows_the_same_to_go_on(tasks: Tasks) -> None:
    lease, action = await held(tasks), to_struct({"tool": "mail.send", "to": ["everybody"], "copies": 2})
    await report(tasks, lease=lease, awaiting_approval=RunAwaitsApproval(step_id="send", action=action))
    asked = await question(tasks)
    assert (asked.action, asked.expires_at.seconds - asked.created_at.seconds) == (action, 24 * 3600)
    await approve(tasks, asked.id)
    stub = worker(tasks, "mailer")
    (run,) = (await stub.LeaseRuns(LeaseRunsRequest())).runs
    (approval,) = run.approvals

    async def use(action: Struct) -> None:
        await stub.UseApproval(UseApprovalRequest(lease=run.lease, approval_id=approval.id, action=action))

    with pytest.raises(FailedPrecondition) as refused:
        await use(to_struct({"tool": "mail.send", "to": ["everybody"], "copies": 3}))
    assert refused.value.reason == "APPROVAL_NOT_GRANTED"
    await use(action)
    with pytest.raises(FailedPrecondition) as lost:
        await stub.UseApproval(UseApprovalRequest(lease=lease, approval_id=approval.id, action=action))
    assert lost.value.reason == "LEASE_LOST"

"""Starting, sending back, setting back, calling off, and the numbers of projects."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from baton.workflows.v1 import workflow_pb2
from baton.workflows.v1.workflow_service_pb2 import (
    CancelWorkflowRequest,
    GetProjectStatsRequest,
    GetProjectStatsResponse,
    GetWorkflowRequest,
    GetWorkflowStatusRequest,
    ListWorkflowsRequest,
    RequestRetryRequest,
    RollBackWorkflowRequest,
    StartWorkflowRequest,
)

from services.chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp
from services.workflows.store import tables
from tests.integration.workflows.running import Workflows

STARTED, ADVANCED, RETRIED, ROLLED_BACK, CANCELED = range(1, 6)


async def retry(workflows: Workflows, workflow_id: str, reason: str = "it is flaky") -> Any:
    return await workflows.caller("x").RequestRetry(RequestRetryRequest(workflow_id=workflow_id, reason=reason))


async def roll_back(workflows: Workflows, workflow_id: str, target: str, reason: str = "a wrong turn") -> Any:
    request = RollBackWorkflowRequest(workflow_id=workflow_id, target_state=target, reason=reason)
    return await workflows.caller("x").RollBackWorkflow(request)


async def stats(workflows: Workflows, project_id: str) -> GetProjectStatsResponse:
    return await workflows.admin.GetProjectStats(GetProjectStatsRequest(project_id=project_id))


async def test_a_workflow_begins_in_its_first_state(workflows: Workflows) -> None:
    await workflows.service.ready()
    agent_id = new_id()
    request = StartWorkflowRequest(
        project_id="shop", build_id="b1", requirements=to_struct({"goal": 1}), metadata=to_struct({"m": True})
    )
    started = await workflows.caller(agent_id=agent_id).StartWorkflow(request)
    assert (started.build_id, started.initial_state, started.status) == ("b1", "discovery", "started")
    assert (started.current_role, started.next_role) == ("q_assistant", "q_assistant")
    assert started.instructions == "The requirements are found out with the user."
    workflow = await workflows.read(started.workflow_id)
    assert (workflow.project_id, workflow.user_id, workflow.started_by) == ("shop", agent_id, agent_id)
    assert (workflow.template, workflow.template_version, workflow.version) == ("build", 2, 1)
    assert (from_struct(workflow.requirements), from_struct(workflow.metadata)) == ({"goal": 1}, {"m": True})
    assert (workflow.progress, list(workflow.completed_phases)) == (0, [])
    status = await workflows.admin.GetWorkflowStatus(GetWorkflowStatusRequest(workflow_id=started.workflow_id))
    assert (status.next_expectations.role, status.elapsed_time) == ("q_assistant", "0h 0m")
    (event,) = await workflows.events(started.workflow_id)
    assert (event.event_type, event.from_state, event.to_state, event.triggered_by) == (
        STARTED, "", "discovery", agent_id,
    )  # fmt: skip


async def test_a_build_is_built_once(workflows: Workflows) -> None:
    await workflows.service.ready()
    request = StartWorkflowRequest(project_id="shop", build_id="b1")
    answers = await asyncio.gather(*(workflows.admin.StartWorkflow(request) for _ in range(10)), return_exceptions=True)
    assert [type(one) for one in answers].count(AlreadyExists) == 9
    assert await workflows.count(tables.workflows) == 1


@pytest.mark.parametrize(
    ("fields", "error", "named"),
    [
        ({"project_id": ""}, InvalidArgument, ["project_id"]),
        ({"build_id": ""}, InvalidArgument, ["build_id"]),
        ({"build_id": "x" * 101}, InvalidArgument, ["build_id"]),
        ({"template": "Build"}, InvalidArgument, ["template"]),
        ({"template": "nothing"}, NotFound, []),
        ({"metadata": to_struct({"x": "y" * 16 * 1024})}, InvalidArgument, ["metadata"]),
        ({"requirements": to_struct({"x": "y" * 256 * 1024})}, InvalidArgument, ["requirements"]),
    ],
)
async def test_bad_starts_store_nothing(
    workflows: Workflows, fields: dict[str, Any], error: type[Exception], named: list[str]
) -> None:
    with pytest.raises(error) as refused:
        await workflows.start(**fields)
    assert [fault.field for fault in refused.value.violations] == named  # type: ignore[attr-defined]
    assert await workflows.count(tables.workflows) == 0


async def test_work_is_sent_back_to_be_done_again(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.go_to(workflow_id, "verification")
    answer = await retry(workflows, workflow_id)
    assert (answer.retry_requested, answer.previous_state, answer.reason) == (True, "implementation", "it is flaky")
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.retries) == ("implementation", 1)
    assert list(workflow.completed_phases) == ["discovery", "planning"]
    assert workflow.progress == 33.3
    last = (await workflows.events(workflow_id))[-1]
    assert (last.event_type, from_struct(last.event_data)["reason"]) == (RETRIED, "it is flaky")
    # What was done before stays in the record.
    await workflows.advance(workflow_id, "implementation", "code_writer")
    assert await workflows.count(tables.phase_results) == 5
    with pytest.raises(FailedPrecondition) as refused:
        await retry(workflows, workflow_id)
    assert refused.value.metadata["allowed"] == "testing,verification"


async def test_work_is_not_sent_back_for_ever(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.go_to(workflow_id, "testing")
    for _ in range(10):
        await workflows.advance(workflow_id, "testing", "test_auditor", "implementation")
        await workflows.advance(workflow_id, "implementation", "code_writer")
        await workflows.advance(workflow_id, "handoff_to_tester", "code_writer")
    for again in (retry(workflows, workflow_id),
                  workflows.advance(workflow_id, "testing", "test_auditor", "implementation")):  # fmt: skip
        with pytest.raises(FailedPrecondition) as refused:
            await again
        assert (refused.value.reason, refused.value.metadata) == ("RETRIES_EXHAUSTED", {"max_retries": "10"})
    assert (await workflows.advance(workflow_id, "testing", "test_auditor")).new_state == "handoff_to_verifier"


async def test_a_workflow_is_set_back_to_an_earlier_state(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.go_to(workflow_id, "deployment")
    answer = await roll_back(workflows, workflow_id, "PLANNING")
    assert (answer.rollback_successful, answer.new_state, answer.reason) == (True, "planning", "a wrong turn")
    record = answer.rollback_record
    assert (record.event_type, record.from_state, record.to_state) == (ROLLED_BACK, "deployment", "planning")
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, list(workflow.completed_phases)) == ("planning", ["discovery"])
    for target in ("planning", "testing", "error", "nowhere", "complete"):
        with pytest.raises(InvalidArgument) as refused:
            await roll_back(workflows, workflow_id, target)
        assert refused.value.violations[0].field == "target_state"
        assert "use one of discovery" in refused.value.violations[0].description


async def test_a_workflow_is_called_off_for_good(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    request = CancelWorkflowRequest(workflow_id=workflow_id, reason="not wanted")
    for _ in range(2):
        canceled = (await workflows.caller().CancelWorkflow(request)).workflow
        assert canceled.status == workflow_pb2.WORKFLOW_STATUS_CANCELED
        assert canceled.HasField("completed_at")
    assert [event.event_type for event in await workflows.events(workflow_id)] == [STARTED, CANCELED]
    for again in (
        workflows.advance(workflow_id, "discovery", "q_assistant"),
        retry(workflows, workflow_id),
        roll_back(workflows, workflow_id, "discovery"),
    ):
        with pytest.raises(FailedPrecondition, match="is canceled"):
            await again


async def test_workflows_are_listed_by_what_they_are(workflows: Workflows) -> None:
    ids = [await workflows.start(project_id=project, build_id=f"b{n}") for n, project in enumerate(["a", "a", "b"])]
    await workflows.advance(ids[0], "discovery", "q_assistant")
    await workflows.admin.CancelWorkflow(CancelWorkflowRequest(workflow_id=ids[1]))

    async def listed(**fields: Any) -> list[str]:
        return [one.workflow_id for one in (await workflows.admin.ListWorkflows(ListWorkflowsRequest(**fields))).items]

    assert await listed() == ids[::-1]
    assert await listed(project_id="a") == [ids[1], ids[0]]
    assert await listed(current_state="planning") == [ids[0]]
    assert await listed(status=[workflow_pb2.WORKFLOW_STATUS_CANCELED]) == [ids[1]]
    assert await listed(build_id="b2", project_id="b") == [ids[2]]
    first = await workflows.admin.ListWorkflows(ListWorkflowsRequest(limit=2))
    assert await listed(limit=2, cursor=first.next_cursor) == [ids[0]]


async def test_a_project_in_numbers(workflows: Workflows) -> None:
    assert (await stats(workflows, "nothing")).total_workflows == 0
    ids = [await workflows.start(project_id="p") for _ in range(4)]
    await workflows.start(project_id="other")
    for workflow_id in ids[:2]:
        await workflows.go_to(workflow_id, "deployment")
    workflows.clock.advance(seconds=90)
    await workflows.advance(ids[0], "deployment", "release_manager")
    await workflows.advance(ids[1], "deployment", "release_manager", "error", {"reason": "down"})
    await workflows.advance(ids[2], "discovery", "q_assistant", "error")
    await workflows.advance(ids[2], "error", "q_assistant", "discovery")
    await workflows.advance(ids[2], "discovery", "q_assistant", "error")
    found = await stats(workflows, "p")
    assert (found.total_workflows, found.completed, found.in_progress, found.failed, found.canceled) == (4, 1, 1, 2, 0)
    assert (found.average_duration, found.success_rate, found.average_handoffs) == (90, 33.3, (10 + 10 + 3) / 4)
    assert found.most_common_failure_point == "discovery"


async def test_what_is_late_is_noticed_once(workflows: Workflows) -> None:
    incident = {"template": "incident_response", "project_id": "p"}
    late, moved, canceled = [await workflows.start(**incident) for _ in range(3)]
    await workflows.start(project_id="p")
    deadline = workflows.clock.now() + timedelta(seconds=900)
    before = await workflows.read(late)
    assert (from_timestamp(before.deadline), before.overdue) == (deadline, False)
    await workflows.advance(moved, "triage", "responder", "mitigation", {"severity": "low"})
    await workflows.admin.CancelWorkflow(CancelWorkflowRequest(workflow_id=canceled))
    workflows.clock.advance(seconds=899)
    await workflows.service.overdue.step()
    assert not (await workflows.read(late)).overdue
    workflows.clock.advance(seconds=1)
    for _ in range(2):
        await workflows.service.overdue.step()
    after = await workflows.read(late)
    assert (after.overdue, after.version) == (True, 1)
    listed = await workflows.admin.ListWorkflows(ListWorkflowsRequest(overdue=True))
    assert [one.workflow_id for one in listed.items] == [late]
    assert len((await workflows.admin.ListWorkflows(ListWorkflowsRequest(overdue=False))).items) == 3
    assert (await stats(workflows, "p")).overdue == 1
    (told,) = [one["payload"] for one in await workflows.told("event") if one["topic"] == "workflow.overdue"]
    assert (told["workflow_id"], told["state"], told["version"]) == (late, "triage", 1)
    status = await workflows.admin.GetWorkflowStatus(GetWorkflowStatusRequest(workflow_id=late))
    assert from_timestamp(status.next_expectations.deadline) == deadline
    await workflows.advance(late, "triage", "responder", "mitigation", {"severity": "low"})
    assert not (await workflows.read(late)).overdue
    assert (await stats(workflows, "p")).overdue == 0


async def test_what_is_not_there_is_not_found(workflows: Workflows) -> None:
    unknown = new_id()
    for call in (
        workflows.admin.GetWorkflow(GetWorkflowRequest(workflow_id=unknown)),
        workflows.admin.GetWorkflowStatus(GetWorkflowStatusRequest(workflow_id=unknown)),
        workflows.events(unknown),
        retry(workflows, unknown),
        roll_back(workflows, unknown, "discovery"),
        workflows.admin.CancelWorkflow(CancelWorkflowRequest(workflow_id=unknown)),
        workflows.advance(unknown, "discovery", "q_assistant"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_who_only_reads_changes_nothing(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    reader = workflows.caller(scopes=["workflows:read"])
    with pytest.raises(PermissionDenied):
        await reader.CancelWorkflow(CancelWorkflowRequest(workflow_id=workflow_id))

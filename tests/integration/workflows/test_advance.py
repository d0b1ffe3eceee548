"""Going on along a template: who may, to where, with what, and what is left behind."""

import asyncio
from typing import Any

import pytest
from baton.workflows.v1 import workflow_pb2
from baton.workflows.v1.workflow_service_pb2 import (
    AdvanceWorkflowRequest,
    GetWorkflowHistoryRequest,
    GetWorkflowStatusRequest,
)

from services.chassis.errors import FailedPrecondition, InvalidArgument, ServiceError
from services.chassis.structs import from_struct, to_struct
from services.workflows.store import tables
from tests.integration.workflows.running import WAY, Workflows

COMPLETE, FAILED, IN_PROGRESS = (
    workflow_pb2.WORKFLOW_STATUS_COMPLETE,
    workflow_pb2.WORKFLOW_STATUS_FAILED,
    workflow_pb2.WORKFLOW_STATUS_IN_PROGRESS,
)
CODE = {"code": "print()", "test_cases": [1], "notes": "none"}


async def refusal(workflows: Workflows, workflow_id: str, *given: Any, **fields: Any) -> ServiceError:
    """How an advance is refused, with nothing written."""
    before = await workflows.read(workflow_id)
    counts = [await workflows.count(table) for table in tables.metadata.sorted_tables]
    with pytest.raises(ServiceError) as refused:
        await workflows.advance(workflow_id, *given, **fields)
    assert await workflows.read(workflow_id) == before
    assert [await workflows.count(table) for table in tables.metadata.sorted_tables] == counts
    return refused.value


async def test_five_roles_take_a_build_to_its_end(workflows: Workflows) -> None:
    workflow_id = await workflows.start(requirements=to_struct({"goal": "a shop"}))
    for place, (state, role) in enumerate(WAY):
        workflows.clock.advance(minutes=31)
        moved = await workflows.advance(workflow_id, state.upper(), role, result={"done": state})
        following = WAY[place + 1][0] if place + 1 < len(WAY) else "complete"
        assert (moved.previous_state, moved.new_state, moved.version) == (state, following, place + 2)
        assert moved.is_complete == (following == "complete")
    workflow = await workflows.read(workflow_id)
    assert (workflow.status, workflow.current_state, workflow.progress) == (COMPLETE, "complete", 100)
    assert list(workflow.completed_phases) == [
        "discovery", "planning", "implementation", "testing", "verification", "deployment",
    ]  # fmt: skip
    workflows.clock.advance(days=3)
    status = await workflows.admin.GetWorkflowStatus(GetWorkflowStatusRequest(workflow_id=workflow_id))
    assert (status.elapsed_time, status.HasField("next_expectations")) == ("5h 10m", False)
    assert [one.to_state for one in status.handoff_history] == [*(state for state, _ in WAY[1:]), "complete"]
    assert [one.to_role for one in status.handoff_history][1:3] == ["code_writer", "code_writer"]
    assert status.handoff_history[-1].to_role == ""
    history = await workflows.admin.GetWorkflowHistory(GetWorkflowHistoryRequest(workflow_id=workflow_id, limit=2))
    assert (history.handoff_count, [one.to_state for one in history.handoffs]) == (10, ["deployment", "complete"])
    ended = await refusal(workflows, workflow_id, "complete", "release_manager")
    assert (ended.reason, ended.metadata["status"]) == ("WORKFLOW_ENDED", "complete")


async def test_the_next_role_is_handed_what_the_template_names(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.go_to(workflow_id, "implementation")
    moved = await workflows.advance(workflow_id, "implementation", "code_writer", result=CODE)
    data = from_struct(moved.handoff_data)
    assert data.pop("handoff_timestamp").endswith("Z")
    assert data == {
        "workflow_id": workflow_id, "current_phase": "handoff_to_tester", "code": "print()", "test_cases": [1],
        "previous_phase_output": CODE, "instructions": "The code is handed to the test auditor.",
    }  # fmt: skip
    assert (moved.next_role, moved.state_description) == ("test_auditor", data["instructions"])


async def test_only_the_state_s_own_role_leaves_it(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    other = await refusal(workflows, workflow_id, "discovery", "code_writer")
    assert (other.reason, other.metadata["allowed"]) == ("STATE_OF_ANOTHER_ROLE", "q_assistant")
    request = AdvanceWorkflowRequest(workflow_id=workflow_id, role="q_assistant", completed_state="discovery")
    for caller in (workflows.caller("code_writer"), workflows.caller()):
        with pytest.raises(ServiceError) as refused:
            await caller.AdvanceWorkflow(request)
        assert refused.value.reason == "ROLE_NOT_HELD"
    assert (await workflows.admin.AdvanceWorkflow(request)).new_state == "planning"


async def test_what_is_not_the_current_state_is_not_done(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    early = await refusal(workflows, workflow_id, "deployment", "release_manager", "complete")
    assert (early.reason, early.metadata["current_state"]) == ("STATE_NOT_CURRENT", "discovery")
    await workflows.advance(workflow_id, "discovery", "q_assistant")
    assert (await refusal(workflows, workflow_id, "discovery", "q_assistant")).reason == "STATE_NOT_CURRENT"


@pytest.mark.parametrize("wanted", ["complete", "discovery", "implementation", "nowhere"])
async def test_nothing_leads_where_the_template_does_not(workflows: Workflows, wanted: str) -> None:
    workflow_id = await workflows.start()
    refused = await refusal(workflows, workflow_id, "discovery", "q_assistant", wanted)
    assert (refused.reason, refused.metadata["allowed"]) == ("TRANSITION_NOT_ALLOWED", "planning,error")


async def test_of_several_ways_one_has_to_be_chosen(workflows: Workflows) -> None:
    workflow_id = await workflows.start(template="incident_response")
    result = {"severity": "high"}
    refused = await refusal(workflows, workflow_id, "triage", "responder", result=result)
    assert isinstance(refused, InvalidArgument)
    assert [fault.field for fault in refused.violations] == ["next_state"]
    assert "mitigation, dismissed" in refused.violations[0].description
    dismissed = await workflows.advance(workflow_id, "triage", "responder", "dismissed", result)
    assert dismissed.is_complete


async def test_a_result_is_held_to_the_state_s_schema(workflows: Workflows) -> None:
    workflow_id = await workflows.start(template="incident_response")
    for result, field in (({}, "phase_result"), ({"severity": "odd"}, "phase_result.severity")):
        refused = await refusal(workflows, workflow_id, "triage", "responder", "mitigation", result)
        assert [fault.field for fault in refused.violations] == [field]
    deep: dict[str, Any] = {"severity": "low"}
    for _ in range(21):
        deep = {"severity": "low", "x": deep}
    for result in (deep, {"severity": "low", "x": "y" * 256 * 1024}):
        refused = await refusal(workflows, workflow_id, "triage", "responder", "mitigation", result)
        assert [fault.field for fault in refused.violations] == ["phase_result"]


async def test_of_fifty_at_once_one_goes_on(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    assistant = workflows.caller("q_assistant")
    request = AdvanceWorkflowRequest(workflow_id=workflow_id, role="q_assistant", completed_state="discovery")
    answers = await asyncio.gather(*(assistant.AdvanceWorkflow(request) for _ in range(50)), return_exceptions=True)
    done = [one for one in answers if not isinstance(one, BaseException)]
    refused = [one for one in answers if isinstance(one, FailedPrecondition)]
    assert (len(done), {one.reason for one in refused}, len(refused)) == (1, {"STATE_NOT_CURRENT"}, 49)
    assert [event.sequence for event in await workflows.events(workflow_id)] == [1, 2]


async def test_a_version_that_is_no_longer_is_refused(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.advance(workflow_id, "discovery", "q_assistant", version=1)
    refused = await refusal(workflows, workflow_id, "planning", "q_assistant", version=1)
    assert (refused.reason, refused.metadata["version"]) == ("WORKFLOW_VERSION_MISMATCH", "2")


async def test_what_goes_wrong_can_be_taken_up_again(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    await workflows.go_to(workflow_id, "testing")
    failed = await workflows.advance(workflow_id, "testing", "test_auditor", "ERROR", {"reason": "no machine"})
    assert (failed.new_state, failed.next_role, failed.is_complete) == ("error", "", False)
    workflow = await workflows.read(workflow_id)
    assert (workflow.status, workflow.error_reason, workflow.current_role) == (FAILED, "no machine", "")
    assert (await refusal(workflows, workflow_id, "error", "code_writer")).violations[0].field == "next_state"
    other = await refusal(workflows, workflow_id, "error", "q_assistant", "implementation")
    assert other.metadata["allowed"] == "code_writer"
    await workflows.advance(workflow_id, "error", "code_writer", "implementation")
    workflow = await workflows.read(workflow_id)
    assert (workflow.status, workflow.error_reason) == (IN_PROGRESS, "")
    assert list(workflow.completed_phases) == ["discovery", "planning"]


async def test_a_repeated_request_goes_on_once(workflows: Workflows) -> None:
    workflow_id = await workflows.start()
    assistant = workflows.caller("q_assistant")
    request = AdvanceWorkflowRequest(
        workflow_id=workflow_id, role="q_assistant", completed_state="discovery", request_id="once"
    )
    first = await assistant.AdvanceWorkflow(request)
    assert await assistant.AdvanceWorkflow(request) == first
    (entry,) = [one for one in await workflows.told("audit") if one["action"] == "workflow.advance"]
    assert (entry["resource"], entry["request_id"]) == (f"workflow/{workflow_id}", "once")
    assert (entry["before"]["state"], entry["after"]["state"]) == ("discovery", "planning")


async def test_others_hear_of_it(workflows: Workflows) -> None:
    workflow_id = await workflows.start(build_id="b1")
    await workflows.advance(workflow_id, "discovery", "q_assistant", "error", {"secret": "not told"})
    told = await workflows.told("event")
    assert [one["topic"] for one in told] == ["workflow.started", "workflow.advanced", "workflow.failed"]
    last = told[-1]["payload"]
    assert (last["workflow_id"], last["build_id"], last["from_state"], last["to_state"], last["role"]) == (
        workflow_id, "b1", "discovery", "error", "q_assistant",
    )  # fmt: skip
    assert "not told" not in str(told)

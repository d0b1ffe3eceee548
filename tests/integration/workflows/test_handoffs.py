"""What is handed over: offered, accepted, rejected, expired; and what runs for a role report."""

import asyncio
from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub
from baton.workflows.v1 import workflow_pb2
from baton.workflows.v1.handoff_service_pb2 import (
    AcceptHandoffRequest,
    GetHandoffRequest,
    ListHandoffsRequest,
    RejectHandoffRequest,
)
from baton.workflows.v1.handoff_service_pb2_grpc import HandoffServiceStub
from baton.workflows.v1.template_service_pb2 import CreateTemplateRequest
from baton.workflows.v1.template_service_pb2_grpc import TemplateServiceStub
from baton.workflows.v1.workflow_service_pb2 import CancelWorkflowRequest, RollBackWorkflowRequest

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import id_at, new_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.workflows.store import tables
from tests.integration.workflows.running import Workflows
from tests.support.grpc import channel_of

ARTICLE = """
name: {name}
initial_state: draft
max_retries: 5
states:
  - {{name: draft, owner_role: writer, phase: writing, {draft}}}
  - {{name: review, owner_role: editor, phase: reviewing, description: It is read., {review}}}
  - {{name: done, owner_role: editor, terminal: true}}
  - {{name: stuck}}
transitions:
  - {{from_state: draft, to_state: review, kind: forward}}
  - {{from_state: review, to_state: done, kind: forward}}
  - {{from_state: review, to_state: draft, kind: retry}}
  - {{from_state: review, to_state: stuck, kind: error}}
  - {{from_state: stuck, to_state: review, kind: recover}}
"""
OFFERED, ACCEPTED = workflow_pb2.HANDOFF_STATUS_OFFERED, workflow_pb2.HANDOFF_STATUS_ACCEPTED
REJECTED, EXPIRED = workflow_pb2.HANDOFF_STATUS_REJECTED, workflow_pb2.HANDOFF_STATUS_EXPIRED
ASKS_TO_ACCEPT = "ack_required: true, ack_seconds: 60"
BY_RUN = "run_for_role: true"


def handoffs_of(workflows: Workflows, role: str = "", *, agent_id: str = "", scope: str = "") -> HandoffServiceStub:
    scopes = [scope] if scope else ["workflows:read", "workflows:write"]
    channel = channel_of(workflows.address, workflows.signer.token(scopes, role=role, agent_id=agent_id or new_id()))
    workflows.channels.append(channel)
    return HandoffServiceStub(channel)


async def begun(workflows: Workflows, review: str, draft: str = "terminal: false", **fields: Any) -> str:
    """A workflow of an article; answers its id."""
    await workflows.service.ready()
    name = f"article-{new_id()}"
    channel = channel_of(workflows.address, workflows.signer.token(["admin"]))
    workflows.channels.append(channel)
    source = ARTICLE.format(name=name, review=review, draft=draft)
    await TemplateServiceStub(channel).CreateTemplate(CreateTemplateRequest(source=source))
    return await workflows.start(template=name, **fields)


async def offered(workflows: Workflows) -> tuple[str, str]:
    """A workflow that waits for the editor to accept it, and the hand-off."""
    workflow_id = await begun(workflows, ASKS_TO_ACCEPT)
    moved = await workflows.advance(workflow_id, "draft", "writer", result={"text": "once"})
    return workflow_id, moved.handoff_id


async def get(workflows: Workflows, handoff_id: str) -> workflow_pb2.Handoff:
    return (await handoffs_of(workflows).GetHandoff(GetHandoffRequest(handoff_id=handoff_id))).handoff


async def test_what_is_offered_is_accepted_before_it_goes_on(workflows: Workflows) -> None:
    workflow_id, handoff_id = await offered(workflows)
    handoff = await get(workflows, handoff_id)
    assert (handoff.status, handoff.workflow_id, handoff.to_role) == (OFFERED, workflow_id, "editor")
    assert (from_timestamp(handoff.ack_deadline) - from_timestamp(handoff.timestamp)).total_seconds() == 60
    with pytest.raises(FailedPrecondition) as early:
        await workflows.advance(workflow_id, "review", "editor")
    assert (early.value.reason, early.value.metadata["handoff_id"]) == ("HANDOFF_NOT_ACCEPTED", handoff_id)
    with pytest.raises(PermissionDenied) as other:
        await handoffs_of(workflows, "writer").AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id))
    assert other.value.reason == "ROLE_NOT_HELD"
    editor = handoffs_of(workflows, "editor", agent_id=(agent := new_id()))
    accepted = (await editor.AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id))).handoff
    assert (accepted.status, accepted.decided_by) == (ACCEPTED, agent)
    assert accepted.HasField("decided_at")
    # Once more by the same one is as if it were the first time; by somebody else it is too late.
    assert (await editor.AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id))).handoff == accepted
    for late in (
        handoffs_of(workflows, "editor").AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id)),
        editor.RejectHandoff(RejectHandoffRequest(handoff_id=handoff_id, reason="no")),
    ):
        with pytest.raises(FailedPrecondition) as refused:
            await late
        assert refused.value.reason == "HANDOFF_NOT_OFFERED"
    assert (await workflows.advance(workflow_id, "review", "editor")).is_complete
    kinds = [
        workflow_pb2.WorkflowEventType.Name(event.event_type)[20:] for event in await workflows.events(workflow_id)
    ]
    assert kinds == ["WORKFLOW_STARTED", "STATE_ADVANCED", "HANDOFF_ACCEPTED", "STATE_ADVANCED"]
    topics = [told["topic"] for told in await workflows.told("event")]
    assert topics[1:4] == ["workflow.advanced", "workflow.handoff_offered", "workflow.handoff_accepted"]


async def test_what_is_rejected_goes_back_to_where_it_came_from(workflows: Workflows) -> None:
    workflow_id, handoff_id = await offered(workflows)
    assert list((await workflows.read(workflow_id)).completed_phases) == ["writing"]
    editor = handoffs_of(workflows, "editor")
    rejected = await editor.RejectHandoff(RejectHandoffRequest(handoff_id=handoff_id, reason="too long"))
    assert (rejected.handoff.status, rejected.handoff.reason) == (REJECTED, "too long")
    workflow = await workflows.read(workflow_id)
    # It is to be done again, and costs none of the retries.
    assert (workflow.current_state, list(workflow.completed_phases), workflow.retries) == ("draft", [], 0)
    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_IN_PROGRESS
    event = (await workflows.events(workflow_id))[-1]
    assert event.event_type == workflow_pb2.WORKFLOW_EVENT_TYPE_HANDOFF_REJECTED
    assert from_struct(event.event_data)["reason"] == "too long"
    again = await workflows.advance(workflow_id, "draft", "writer", result={"text": "twice"})
    assert again.handoff_id != handoff_id
    assert (await get(workflows, again.handoff_id)).status == OFFERED


async def test_what_failed_has_failed_again_when_its_recovery_is_rejected(workflows: Workflows) -> None:
    workflow_id, handoff_id = await offered(workflows)
    # A failure needs nobody to accept anything.
    await workflows.advance(workflow_id, "review", "editor", "stuck", {"reason": "burnt"})
    assert (await get(workflows, handoff_id)).status == EXPIRED
    recovered = await workflows.advance(workflow_id, "stuck", "editor", "review")
    await handoffs_of(workflows, "editor").RejectHandoff(
        RejectHandoffRequest(handoff_id=recovered.handoff_id, reason="still burnt")
    )
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.error_reason) == ("stuck", "still burnt")
    assert workflow.status == workflow_pb2.WORKFLOW_STATUS_FAILED


async def test_what_nobody_accepts_in_time_goes_back(workflows: Workflows) -> None:
    workflow_id, handoff_id = await offered(workflows)
    workflows.clock.advance(seconds=59)
    await workflows.service.handoff_expiry.step()
    assert (await workflows.read(workflow_id)).current_state == "review"
    workflows.clock.advance(seconds=2)
    await asyncio.gather(*(workflows.service.handoff_expiry.step() for _ in range(3)))
    assert (await workflows.read(workflow_id)).current_state == "draft"
    handoff = await get(workflows, handoff_id)
    assert (handoff.status, handoff.reason) == (EXPIRED, "nobody has accepted it in time")
    events = await workflows.events(workflow_id)
    assert [event.event_type for event in events[2:]] == [workflow_pb2.WORKFLOW_EVENT_TYPE_HANDOFF_EXPIRED]
    with pytest.raises(FailedPrecondition) as late:
        await handoffs_of(workflows, "editor").AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id))
    assert (late.value.reason, late.value.metadata["status"]) == ("HANDOFF_NOT_OFFERED", "expired")


async def test_of_many_who_decide_at_once_one_does(workflows: Workflows) -> None:
    workflow_id, handoff_id = await offered(workflows)

    async def decide(accepts: bool) -> bool:
        stub = handoffs_of(workflows, "editor")
        try:
            if accepts:
                await stub.AcceptHandoff(AcceptHandoffRequest(handoff_id=handoff_id))
            else:
                await stub.RejectHandoff(RejectHandoffRequest(handoff_id=handoff_id, reason="no"))
        except FailedPrecondition:
            return False
        return True

    assert sum(await asyncio.gather(*(decide(number % 2 == 0) for number in range(20)))) == 1
    accepted = (await get(workflows, handoff_id)).status == ACCEPTED
    assert (await workflows.read(workflow_id)).current_state == ("review" if accepted else "draft")


@pytest.mark.parametrize("by", ["cancel", "roll_back"])
async def test_what_a_workflow_has_left_is_offered_no_more(workflows: Workflows, by: str) -> None:
    workflow_id, handoff_id = await offered(workflows)
    if by == "cancel":
        await workflows.admin.CancelWorkflow(CancelWorkflowRequest(workflow_id=workflow_id))
    else:
        request = RollBackWorkflowRequest(workflow_id=workflow_id, target_state="draft", reason="no")
        await workflows.admin.RollBackWorkflow(request)
    assert (await get(workflows, handoff_id)).status == EXPIRED
    workflows.clock.advance(seconds=90)
    before = await workflows.read(workflow_id)
    await workflows.service.handoff_expiry.step()
    assert await workflows.read(workflow_id) == before


async def test_handoffs_are_listed_by_role_status_and_workflow(workflows: Workflows) -> None:
    pairs = [await offered(workflows) for _ in range(3)]
    await handoffs_of(workflows, "editor").AcceptHandoff(AcceptHandoffRequest(handoff_id=pairs[0][1]))
    stub, seen, cursor = handoffs_of(workflows), [], ""
    while True:
        page = await stub.ListHandoffs(ListHandoffsRequest(status=[OFFERED], to_role="editor", limit=1, cursor=cursor))
        seen += [one.id for one in page.items]
        cursor = page.next_cursor
        if not page.has_more:
            break
    assert seen == [pairs[2][1], pairs[1][1]]
    of_one = await stub.ListHandoffs(ListHandoffsRequest(workflow_id=pairs[0][0].upper()))
    assert [one.id for one in of_one.items] == [pairs[0][1]]
    assert not (await stub.ListHandoffs(ListHandoffsRequest(to_role="writer"))).items
    with pytest.raises(NotFound) as unknown:
        await get(workflows, new_id())
    assert unknown.value.reason == "HANDOFF_NOT_FOUND"


@pytest.mark.parametrize(
    ("review", "field"),
    [
        ("ack_required: true, run_for_role: true", "ack_required"),
        ("ack_seconds: 5", "ack_seconds"),
    ],
)
async def test_a_template_that_asks_for_what_cannot_be_is_refused(
    workflows: Workflows, review: str, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await begun(workflows, review)
    assert [one.field for one in refused.value.violations] == [f"source.states[1].{field}"]


# What runs for a role do.


async def asked(workflows: Workflows) -> list[dict[str, Any]]:
    return await workflows.told("handoff")


async def report(workflows: Workflows, task_id: str, *, times: int = 1, **fields: Any) -> str:
    """The tasks service tells how a run has ended; answers the run's id."""
    told = {
        "id": task_id, "run_id": new_id(), "agent_id": new_id(), "status": "succeeded", "output": {}, "error": "",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    } | fields  # fmt: skip
    now = workflows.clock.now()
    message = OutboxMessage(id=id_at(now), topic="report", payload=orjson.dumps(told), created_at=to_timestamp(now))
    channel = channel_of(workflows.address, workflows.signer.token(["messages:deliver"]))
    workflows.channels.append(channel)
    for _ in range(times):
        await InboxServiceStub(channel).DeliverMessages(DeliverMessagesRequest(source="tasks", messages=[message]))
    return str(told["run_id"])


async def test_who_has_to_work_is_asked_for_a_run_of_each_state(workflows: Workflows) -> None:
    workflow_id = await begun(workflows, BY_RUN, BY_RUN, build_id="a1")
    (first,) = await asked(workflows)
    assert (first["id"], first["role"], first["context"]["state"]) == (workflow_id, "writer", "draft")
    moved = await workflows.advance(workflow_id, "draft", "writer", result={"text": "once"})
    _, withdrawn, second = await asked(workflows)
    # Whoever wrote may end in peace.
    assert (withdrawn["id"], withdrawn["is_done"]) == (workflow_id, True)
    assert (second["id"], second["role"], second["description"]) == (moved.handoff_id, "editor", "It is read.")
    assert second["data"]["previous_phase_output"] == {"text": "once"}
    assert second["context"]["workflow_id"] == workflow_id
    await workflows.admin.CancelWorkflow(CancelWorkflowRequest(workflow_id=workflow_id))
    last = (await asked(workflows))[-1]
    assert (last["id"], last["is_done"]) == (moved.handoff_id, False)


async def test_a_report_takes_the_workflow_on_once(workflows: Workflows) -> None:
    workflow_id = await begun(workflows, BY_RUN, BY_RUN)
    agent = new_id()
    await report(workflows, workflow_id, times=3, agent_id=agent, output={"phase_result": {"text": "once"}})
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.version) == ("review", 2)
    event = (await workflows.events(workflow_id))[-1]
    assert (event.triggered_by, event.role) == (agent, "writer")
    # It goes on in the trace in which the agent has reported.
    assert event.trace_id == "0af7651916cd43dd8448eb211c80319c"
    # The first task is done, not taken back; the second is there for the editor, who sends the work back.
    first, second = await asked(workflows)
    assert (first["id"], second["role"]) == (workflow_id, "editor")
    assert second["traceparent"].split("-")[1] == event.trace_id
    await report(workflows, second["id"], output={"phase_result": {}, "next_state": "draft"})
    assert (await workflows.read(workflow_id)).current_state == "draft"
    # What is said of a state that was left comes too late.
    await report(workflows, second["id"], output={"phase_result": {}})
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.retries) == ("draft", 1)


async def test_a_report_without_a_result_leaves_it_to_the_agent(workflows: Workflows) -> None:
    workflow_id = await begun(workflows, BY_RUN, BY_RUN)
    before = await workflows.read(workflow_id)
    await report(workflows, workflow_id, output={"note": "done, and I say so myself"})
    assert await workflows.read(workflow_id) == before


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"output": {"phase_result": 5}}, "phase_result must be an object"),
        ({"output": {"phase_result": {}, "next_state": 5}}, "next_state must be the name of a state"),
        ({"output": {"phase_result": {}, "next_state": "done"}}, "nothing leads from 'draft' to 'done'"),
        ({"output": {"phase_result": {"x": "y" * 300_000}}}, "phase_result"),
        ({"status": "canceled", "error": "the run was called off"}, "the run was not done, it is canceled"),
        ({"status": "failed", "error": "no ink"}, "the run has failed: no ink"),
    ],
)
async def test_a_report_that_cannot_be_gone_on_with_is_told(
    workflows: Workflows, fields: dict[str, Any], reason: str
) -> None:
    workflow_id = await begun(workflows, BY_RUN, BY_RUN)
    run_id = await report(workflows, workflow_id, times=2, **fields)
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.version) == ("draft", 2)
    event = (await workflows.events(workflow_id))[-1]
    assert event.event_type == workflow_pb2.WORKFLOW_EVENT_TYPE_REPORT_REFUSED
    told = from_struct(event.event_data)
    assert told["run_id"] == run_id
    assert reason in str(told["reason"])
    assert await workflows.count(tables.phase_results) == 0
    # Another run, such as a retry of it, is heard all the same.
    await report(workflows, workflow_id, output={"phase_result": {}})
    assert (await workflows.read(workflow_id)).current_state == "review"


async def test_a_run_that_fails_takes_the_workflow_where_failures_lead(workflows: Workflows) -> None:
    workflow_id = await begun(workflows, BY_RUN, BY_RUN)
    moved = await workflows.advance(workflow_id, "draft", "writer")
    await report(workflows, moved.handoff_id, status="failed", error="no ink")
    workflow = await workflows.read(workflow_id)
    assert (workflow.current_state, workflow.error_reason) == ("stuck", "no ink")


async def test_a_message_that_is_no_report_is_refused(workflows: Workflows) -> None:
    with pytest.raises(InvalidArgument, match="has not the fields"):
        await report(workflows, new_id(), output=5)

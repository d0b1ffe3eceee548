"""Approvals: asked by workers and over REST, decided by others, obeyed by runs."""

import asyncio
from datetime import UTC, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import approval_pb2, run_pb2
from baton.tasks.v1.approval_service_pb2 import (
    ApproveApprovalRequest,
    GetApprovalRequest,
    ListApprovalsRequest,
    RejectApprovalRequest,
    RequestApprovalRequest,
)
from baton.tasks.v1.approval_service_pb2_grpc import ApprovalServiceStub
from baton.tasks.v1.ledger_service_pb2 import ApproveLedgerRunRequest, CreateLedgerRunRequest
from baton.tasks.v1.ledger_service_pb2_grpc import LedgerServiceStub
from baton.tasks.v1.run_service_pb2 import CancelRunRequest, ExplainRunRequest
from baton.tasks.v1.task_service_pb2 import PauseTaskRequest, ResumeTaskRequest
from baton.tasks.v1.work_service_pb2 import LeasedRun, RunAwaitsApproval, RunReport, UseApprovalRequest

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.pipeline import canonical
from services.tasks.operations import retention
from services.tasks.store import tables
from tests.integration.tasks.audits import audited
from tests.integration.tasks.running import END_OF_TIME, Tasks
from tests.integration.tasks.work import step

ACTION = {"tool": "mail.send", "arguments": {"to": "all"}}
DIGEST = canonical.digest(ACTION)
ASKS = ("approvals:request", "approvals:read", "approvals:decide")


def somebody(tasks: Tasks, *scopes: str, agent_id: str | None = None, role: str = "") -> ApprovalServiceStub:
    token = tasks.signer.token(
        scopes or ("approvals:read", "approvals:decide"), agent_id=agent_id, role=role, expires_at=END_OF_TIME
    )
    return ApprovalServiceStub(tasks.channel_with(token))


def awaiting(leased: LeasedRun, **fields: Any) -> RunReport:
    asked = {"step_id": "step_2", "action": to_struct(ACTION), "action_digest": DIGEST, "expires_seconds": 600}
    return RunReport(lease=leased.lease, awaiting_approval=RunAwaitsApproval(**asked | fields))


async def leased_run(tasks: Tasks, **fields: Any) -> LeasedRun:
    task = await tasks.create(**fields)
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    return leased


async def question(tasks: Tasks, **filters: Any) -> approval_pb2.Approval:
    """The only approval that there is."""
    (approval,) = (await somebody(tasks).ListApprovals(ListApprovalsRequest(**filters))).items
    return approval


async def asked_run(tasks: Tasks, **fields: Any) -> tuple[LeasedRun, approval_pb2.Approval]:
    """A run that awaits an approval, and the approval."""
    asks = {name: fields.pop(name) for name in list(fields) if name in ("approver_role", "expires_seconds")}
    leased = await leased_run(tasks, **fields)
    assert await tasks.report(awaiting(leased, **asks)) == [True]
    return leased, await question(tasks, run_id=leased.lease.run_id)


async def approve(tasks: Tasks, approval_id: str, note: str = "fine", **who: Any) -> approval_pb2.Approval:
    request = ApproveApprovalRequest(approval_id=approval_id, note=note)
    return (await somebody(tasks, **who).ApproveApproval(request)).approval


async def reject(tasks: Tasks, approval_id: str, note: str = "", **who: Any) -> approval_pb2.Approval:
    request = RejectApprovalRequest(approval_id=approval_id, note=note)
    return (await somebody(tasks, **who).RejectApproval(request)).approval


async def refused(error: Any, call: Any) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value.reason)


async def test_a_run_waits_without_lease_or_key_until_somebody_says_yes(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks, concurrency_key="one")
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.approval_state, run.HasField("lease_owner")) == (
        run_pb2.RUN_STATUS_AWAITING_APPROVAL,
        run_pb2.APPROVAL_STATE_PENDING,
        False,
    )
    assert (from_struct(approval.action), approval.action_digest, approval.step_id) == (ACTION, DIGEST, "step_2")
    assert (approval.requested_by, approval.task, approval.task_id) == (run.created_by, run.task, run.task_id)
    assert approval.expires_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(seconds=600)
    # The next with its key need not wait for people.
    other = await leased_run(tasks, concurrency_key="one")
    await tasks.finish(other.lease)
    assert await tasks.lease() == []
    answered = await approve(tasks, approval.id)
    assert (answered.status, answered.note) == (approval_pb2.APPROVAL_STATUS_APPROVED, "fine")
    (again,) = await tasks.lease()
    assert (again.lease.run_id, again.lease.attempt) == (leased.lease.run_id, 2)
    assert [one.id for one in again.approvals] == [approval.id]
    run = await tasks.run(leased.lease.run_id)
    assert (run.approval_state, run.approval_note, run.retries) == (run_pb2.APPROVAL_STATE_APPROVED, "fine", 0)
    assert run.approver == answered.decided_by


async def use(tasks: Tasks, leased: LeasedRun, approval_id: str, digest: str = DIGEST) -> None:
    await tasks.work.UseApproval(UseApprovalRequest(lease=leased.lease, approval_id=approval_id, action_digest=digest))


async def test_only_the_approved_call_is_let_through_and_only_under_the_lease(tasks: Tasks) -> None:
    first, approval = await asked_run(tasks)
    assert await refused(FailedPrecondition, use(tasks, first, approval.id)) == "LEASE_LOST"
    await approve(tasks, approval.id)
    (leased,) = await tasks.lease()
    other = "ab" * 32
    assert await refused(FailedPrecondition, use(tasks, leased, approval.id, other)) == "APPROVAL_NOT_GRANTED"
    assert await refused(FailedPrecondition, use(tasks, leased, new_id())) == "APPROVAL_NOT_GRANTED"
    await use(tasks, leased, approval.id)
    await use(tasks, leased, approval.id)  # the answer was lost: nothing was done in between
    found = await question(tasks, status=[approval_pb2.APPROVAL_STATUS_APPROVED])
    assert found.used_at.ToDatetime(UTC) == tasks.clock.now()
    await tasks.report(RunReport(lease=leased.lease, steps=[step(1)]))
    assert await refused(FailedPrecondition, use(tasks, leased, approval.id)) == "APPROVAL_NOT_GRANTED"
    stranger = await leased_run(tasks)
    assert await refused(FailedPrecondition, use(tasks, stranger, approval.id)) == "APPROVAL_NOT_GRANTED"


async def test_a_rejected_call_is_let_through_by_nobody(tasks: Tasks) -> None:
    _, approval = await asked_run(tasks)
    answered = await reject(tasks, approval.id, "no")
    assert answered.status == approval_pb2.APPROVAL_STATUS_REJECTED
    (leased,) = await tasks.lease()
    assert [one.status for one in leased.approvals] == [approval_pb2.APPROVAL_STATUS_REJECTED]
    assert await refused(FailedPrecondition, use(tasks, leased, approval.id)) == "APPROVAL_NOT_GRANTED"


async def test_who_asked_or_works_on_it_does_not_decide(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks)
    run = await tasks.run(leased.lease.run_id)
    for agent_id in (run.created_by, run.agent_id):
        everything = somebody(tasks, "admin", agent_id=agent_id)
        call = everything.ApproveApproval(ApproveApprovalRequest(approval_id=approval.id))
        assert await refused(PermissionDenied, call) == "APPROVER_IS_REQUESTER"
    assert (await question(tasks)).status == approval_pb2.APPROVAL_STATUS_PENDING


async def test_some_questions_are_for_one_role(tasks: Tasks) -> None:
    _, approval = await asked_run(tasks, approver_role="treasurer")
    assert await refused(PermissionDenied, approve(tasks, approval.id)) == "APPROVER_ROLE_MISSING"
    assert await refused(PermissionDenied, reject(tasks, approval.id, role="cook")) == "APPROVER_ROLE_MISSING"
    assert (await approve(tasks, approval.id, role="treasurer")).status == approval_pb2.APPROVAL_STATUS_APPROVED
    _, other = await asked_run(tasks, approver_role="treasurer")
    admin = somebody(tasks, "admin")
    await admin.RejectApproval(RejectApprovalRequest(approval_id=other.id))


async def test_a_question_is_answered_once(tasks: Tasks) -> None:
    _, approval = await asked_run(tasks)
    answers = await asyncio.gather(
        approve(tasks, approval.id), reject(tasks, approval.id), approve(tasks, approval.id), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Approval"] + ["FailedPrecondition"] * 2
    assert await refused(FailedPrecondition, approve(tasks, approval.id)) == "APPROVAL_DECIDED"
    assert len(await tasks.lease(limit=10)) == 1


async def test_an_answer_may_be_sent_twice(tasks: Tasks) -> None:
    _, approval = await asked_run(tasks)
    request = ApproveApprovalRequest(approval_id=approval.id, request_id="a key")
    approver = somebody(tasks, agent_id=new_id())
    assert await approver.ApproveApproval(request) == await approver.ApproveApproval(request)


async def test_no_answer_in_time_is_a_no(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks, expires_seconds=5)
    tasks.clock.advance(seconds=4)
    await tasks.service.expiry.step()
    assert (await question(tasks)).status == approval_pb2.APPROVAL_STATUS_PENDING
    tasks.clock.advance(seconds=1)
    assert await refused(FailedPrecondition, approve(tasks, approval.id)) == "APPROVAL_EXPIRED"
    await asyncio.gather(tasks.service.expiry.step(), tasks.service.expiry.step())
    (again,) = await tasks.lease()
    (answer,) = again.approvals
    assert (answer.status, answer.decided_by, answer.note) == (
        approval_pb2.APPROVAL_STATUS_EXPIRED,
        "",
        "nobody decided in time",
    )
    run = await tasks.run(leased.lease.run_id)
    assert run.approval_state == run_pb2.APPROVAL_STATE_REJECTED


async def test_a_run_that_is_called_off_is_asked_about_no_more(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=leased.lease.run_id))
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_CANCELED
    found = await somebody(tasks).GetApproval(GetApprovalRequest(approval_id=approval.id))
    assert found.approval.status == approval_pb2.APPROVAL_STATUS_CANCELLED
    assert await refused(FailedPrecondition, approve(tasks, approval.id)) == "APPROVAL_DECIDED"


async def test_a_run_that_was_called_off_asks_no_more(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=leased.lease.run_id))
    await tasks.report(awaiting(leased))
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_CANCELED
    assert (await somebody(tasks).ListApprovals(ListApprovalsRequest())).items == []


async def test_an_approved_run_of_a_paused_task_waits_for_the_task(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks, concurrency_key="one")
    task_id = (await tasks.run(leased.lease.run_id)).task_id
    await tasks.tasks.PauseTask(PauseTaskRequest(task_id=task_id))
    await approve(tasks, approval.id)
    assert await tasks.lease() == []
    await tasks.tasks.ResumeTask(ResumeTaskRequest(task_id=task_id))
    assert len(await tasks.lease()) == 1


async def test_explain_says_whom_to_ask(tasks: Tasks) -> None:
    leased, approval = await asked_run(tasks, approver_role="treasurer")
    explanation = await tasks.runs.ExplainRun(ExplainRunRequest(run_id=leased.lease.run_id))
    (blocker,) = explanation.blockers
    assert blocker.code == "awaiting_approval"
    assert blocker.message.startswith("an agent with the role 'treasurer' other than who asked")
    assert blocker.action == f"POST /approvals/{approval.id}/approve"


# Asked over REST.


async def queued_run(tasks: Tasks, **fields: Any) -> str:
    task = await tasks.create(**fields)
    return await tasks.run_now(task.id)


def owner(tasks: Tasks) -> ApprovalServiceStub:
    return somebody(tasks, "admin")


async def test_a_queued_run_is_held_until_it_is_approved(tasks: Tasks) -> None:
    run_id = await queued_run(tasks, concurrency_key="one")
    request = RequestApprovalRequest(run_id=run_id, reason="is it safe?", action=to_struct(ACTION))
    asked = await owner(tasks).RequestApproval(request)
    assert (asked.status, asked.approval.reason, asked.approval.step_id) == ("accepted", "is it safe?", "")
    assert asked.approval.expires_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(days=1)
    assert await tasks.lease() == []
    await approve(tasks, asked.approval_id)
    (leased,) = await tasks.lease()
    assert leased.lease.run_id == run_id


@pytest.mark.parametrize("late", [False, True])
async def test_a_run_that_may_not_be_done_ends_without_a_worker(tasks: Tasks, late: bool) -> None:
    run_id = await queued_run(tasks)
    asked = await owner(tasks).RequestApproval(RequestApprovalRequest(run_id=run_id, expires_seconds=1))
    if late:
        tasks.clock.advance(seconds=1)
        await tasks.service.expiry.step()
    else:
        await reject(tasks, asked.approval_id, "too dear")
    run = await tasks.run(run_id)
    assert (run.status, getattr(run.error, "class")) == (
        run_pb2.RUN_STATUS_FAILED,
        run_pb2.ERROR_CLASS_APPROVAL_REJECTED,
    )
    expected = "the approval expired: nobody decided in time" if late else "the approval was rejected: too dear"
    assert run.error.message == expected


async def test_the_run_of_a_task_is_meant_by_the_task(tasks: Tasks) -> None:
    task = await tasks.create()
    nobody = owner(tasks).RequestApproval(RequestApprovalRequest(task_id=task.id))
    assert await refused(FailedPrecondition, nobody) == "NO_LIVE_RUN"
    run_id = await tasks.run_now(task.id)
    asked = await owner(tasks).RequestApproval(RequestApprovalRequest(task_id=task.id, comments="please"))
    assert (asked.approval.run_id, asked.approval.reason) == (run_id, "please")
    # As the earlier clients answer.
    answer = RequestApprovalRequest(task_id=task.id, decision=approval_pb2.APPROVAL_STATUS_APPROVED, comments="ok")
    asks_only = somebody(tasks, "approvals:request", agent_id=new_id())
    assert await refused(PermissionDenied, asks_only.RequestApproval(answer)) == "SCOPE_MISSING"
    answered = await somebody(tasks, *ASKS, agent_id=new_id()).RequestApproval(answer)
    assert (answered.approval.status, answered.approval.note) == (approval_pb2.APPROVAL_STATUS_APPROVED, "ok")


async def test_what_cannot_be_asked(tasks: Tasks) -> None:
    run_id = await queued_run(tasks)
    asks = somebody(tasks, *ASKS, agent_id=new_id())
    for request, error, reason in (
        (RequestApprovalRequest(), InvalidArgument, None),
        (RequestApprovalRequest(run_id=run_id, task_id=run_id), InvalidArgument, None),
        (RequestApprovalRequest(run_id=new_id()), NotFound, "RUN_NOT_FOUND"),
        (RequestApprovalRequest(run_id=run_id), PermissionDenied, "RUN_OF_ANOTHER_AGENT"),
        (RequestApprovalRequest(run_id=run_id, action=to_struct({"a": "x" * 70_000})), InvalidArgument, None),
    ):
        got = await refused(error, asks.RequestApproval(request))
        assert reason in (None, got)
    (leased,) = await tasks.lease()
    asked = owner(tasks).RequestApproval(RequestApprovalRequest(run_id=run_id))
    assert await refused(FailedPrecondition, asked) == "RUN_UNDER_WAY"
    await tasks.finish(leased.lease)
    asked = owner(tasks).RequestApproval(RequestApprovalRequest(run_id=run_id))
    assert await refused(FailedPrecondition, asked) == "RUN_FINISHED"
    other = await queued_run(tasks)
    await owner(tasks).RequestApproval(RequestApprovalRequest(run_id=other))
    asked = owner(tasks).RequestApproval(RequestApprovalRequest(run_id=other))
    assert await refused(FailedPrecondition, asked) == "APPROVAL_PENDING"
    assert await tasks.count(tables.approvals) == 1


# Reported from outside.


async def reported_run(tasks: Tasks, status: Any = run_pb2.RUN_STATUS_AWAITING_APPROVAL) -> str:
    reporter = LedgerServiceStub(tasks.channel(["runs:report"], agent_id=new_id()))
    request = CreateLedgerRunRequest(task="nightly", run_id="nightly-1", status=status)
    return (await reporter.CreateLedgerRun(request)).run.id


async def test_reported_runs_are_in_the_inbox_and_decided_there(tasks: Tasks) -> None:
    run_id = await reported_run(tasks)
    approval = await question(tasks)
    assert (approval.run_id, approval.task, approval.HasField("expires_at")) == (run_id, "nightly", False)
    await approve(tasks, approval.id)
    assert (await tasks.run(run_id)).status == run_pb2.RUN_STATUS_SUCCEEDED
    assert (await somebody(tasks).ListApprovals(ListApprovalsRequest())).items == []


async def test_what_is_decided_in_the_ledger_is_gone_from_the_inbox(tasks: Tasks) -> None:
    run_id = await reported_run(tasks)
    approval = await question(tasks)
    decider = LedgerServiceStub(tasks.channel(["approvals:decide"], agent_id=new_id()))
    await decider.ApproveLedgerRun(ApproveLedgerRunRequest(id=run_id, note="well"))
    found = (await somebody(tasks).GetApproval(GetApprovalRequest(approval_id=approval.id))).approval
    assert (found.status, found.note) == (approval_pb2.APPROVAL_STATUS_APPROVED, "well")


async def test_a_reported_run_may_be_asked_about_with_a_time_limit(tasks: Tasks) -> None:
    run_id = await reported_run(tasks, status=run_pb2.RUN_STATUS_RUNNING)
    await owner(tasks).RequestApproval(RequestApprovalRequest(run_id=run_id, expires_seconds=5))
    tasks.clock.advance(seconds=5)
    await tasks.service.expiry.step()
    run = await tasks.run(run_id)
    assert (run.status, run.approver, run.approval_note) == (run_pb2.RUN_STATUS_FAILED, "", "nobody decided in time")


# The inbox.


async def test_the_inbox_is_worked_off_from_its_oldest_entry(tasks: Tasks) -> None:
    asked = [await asked_run(tasks, approver_role="treasurer" if index % 2 else "") for index in range(5)]
    ids = [approval.id for _, approval in asked]
    reader = somebody(tasks)
    first = await reader.ListApprovals(ListApprovalsRequest(limit=3))
    rest = await reader.ListApprovals(ListApprovalsRequest(limit=3, cursor=first.next_cursor))
    assert [one.id for one in (*first.items, *rest.items)] == ids
    for_role = await reader.ListApprovals(ListApprovalsRequest(approver_role="treasurer"))
    assert [one.id for one in for_role.items] == [ids[1], ids[3]]
    of_task = await reader.ListApprovals(ListApprovalsRequest(task_id=asked[2][1].task_id))
    assert [one.id for one in of_task.items] == [ids[2]]
    for approval_id in ids[:2]:
        await approve(tasks, approval_id, role="treasurer")
    statuses = [approval_pb2.APPROVAL_STATUS_APPROVED, approval_pb2.APPROVAL_STATUS_REJECTED]
    decided = await reader.ListApprovals(ListApprovalsRequest(status=statuses))
    assert [one.id for one in decided.items] == [ids[1], ids[0]]


async def test_each_change_is_audited_once(tasks: Tasks) -> None:
    run_id = await queued_run(tasks)
    asked = await owner(tasks).RequestApproval(RequestApprovalRequest(run_id=run_id))
    await approve(tasks, asked.approval_id)
    told = [entry for entry in await audited(tasks) if entry["resource"][:9] == "approval/"]
    found = [(entry["action"], entry["after"]["status"]) for entry in told]
    assert found == [("approval.request", "pending"), ("approval.approve", "approved")]


async def test_answers_go_with_the_history(tasks: Tasks) -> None:
    _, approval = await asked_run(tasks)
    await approve(tasks, approval.id)
    tasks.clock.advance(days=2)

    async def prune() -> bool:
        """Deletes one at most; answers whether there was one."""
        now = tasks.clock.now()
        pruned = await tasks.database.transact(
            lambda connection, clock: retention.prune_answers(connection, now, 1, clock)
        )
        return not pruned.complete

    assert not await prune()  # its run goes on
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    assert await prune()

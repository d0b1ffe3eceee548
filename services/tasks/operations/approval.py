"""Asking whether a run may go on, answering that, and acting on the answer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.tasks.errors import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalNotFound,
    ApprovalNotGranted,
    ApprovalPending,
    ApproverIsRequester,
    ApproverRoleMissing,
    LeaseLost,
    NoLiveRun,
    RunFinished,
    RunNotFound,
    RunOfAnotherAgent,
    RunUnderWay,
)
from services.tasks.models.approval import Approval, ApprovalStatus, Ask
from services.tasks.models.ledger import Decision
from services.tasks.models.run import ApprovalState, AwaitsApproval, ErrorClass, Lease, RunError, RunStatus
from services.tasks.operations import ledger
from services.tasks.operations.approval_events import tell_approval
from services.tasks.store import approval as approval_store
from services.tasks.store import history, queue, tables
from services.tasks.store import lease as lease_store
from services.tasks.store.domain_event import RunChange, publish_runs
from services.tasks.store.ending import Ending, finish
from services.tasks.store.line import lines_of, settle
from services.tasks.store.step import is_done

EXPIRY_BATCH = 100
EXPIRED_NOTE = "nobody decided in time"
_EXPIRY = "baton.expiry"
# What an answer is for the run, which knows no expiry of its own.
_RUN_STATE = {
    ApprovalStatus.APPROVED: ApprovalState.APPROVED,
    ApprovalStatus.REJECTED: ApprovalState.REJECTED,
    ApprovalStatus.EXPIRED: ApprovalState.REJECTED,
}


@dataclass(frozen=True)
class Answered:
    """An approval and whose workers have something to do now."""

    approval: Approval
    roles: set[str]


def ask_of_step(connection: Connection, run_id: str, asked: AwaitsApproval, now: datetime) -> None:
    """Takes a leased run out of the queue until its step is approved; whoever calls settles its line."""
    run = lease_store.suspend(connection, run_id, now)
    ask = Ask(
        asked.approver_role,
        asked.action,
        asked.action_digest,
        now + asked.expires,
        step_id=asked.step_id,
        action_uri=asked.action_uri,
    )
    _add(connection, run, ask, run.created_by, now)


def run_in_question(connection: Connection, run_id: str, task_id: str) -> str:
    """The run that is meant by its id, or by that of its task. Raises NoLiveRun."""
    if run_id:
        return run_id
    live = queue.live_runs_of(connection, [task_id]).get(task_id)
    if live is None:
        raise NoLiveRun(task_id)
    return live


def request_approval(
    connection: Connection, run_id: str, ask: Ask, caller: Caller, clock: Clock, *, request_id: str
) -> Answered:
    """Asks about a run that waits in the queue or is reported: it does not go on until that is answered.

    Raises RunNotFound, RunFinished, RunOfAnotherAgent, RunUnderWay, ApprovalPending, and RunTransitionNotAllowed for
    a reported run that cannot be asked about.
    """
    live = queue.lock_live(connection, run_id)
    if live is None:
        run = history.get_run(connection, run_id)
        raise RunNotFound(run_id) if run is None else RunFinished(run_id, run.status)
    if caller.agent_id != live.created_by and not caller.holds("admin"):
        raise RunOfAnotherAgent(run_id)
    pending = approval_store.pending_of_run(connection, run_id)
    if pending is not None:
        raise ApprovalPending(run_id, pending)
    if live.lease_token is not None:
        raise RunUnderWay(run_id)
    roles: set[str] = set()
    if live.reported:
        approval_id = ledger.ask(connection, run_id, ask, caller, clock)
    else:
        suspended = lease_store.suspend(connection, run_id, clock.now())
        approval_id = _add(connection, suspended, ask, caller.agent_id, clock.now())
        roles = settle(connection, lines_of([live]), clock.now())
    approval = get_approval(connection, approval_id)
    _audit(connection, "approval.request", None, approval, caller.agent_id, request_id, clock)
    return Answered(approval, roles)


def get_approval(connection: Connection, approval_id: str) -> Approval:
    """Raises ApprovalNotFound."""
    approval = approval_store.get_approval(connection, approval_id)
    if approval is None:
        raise ApprovalNotFound(approval_id)
    return approval


def pending_approval_of(connection: Connection, run_id: str) -> str:
    """The question about a run that is open. Raises ApprovalNotFound."""
    approval_id = approval_store.pending_of_run(connection, run_id)
    if approval_id is None:
        raise ApprovalNotFound(run_id)
    return approval_id


def decide(
    connection: Connection,
    approval_id: str,
    status: ApprovalStatus,
    note: str,
    caller: Caller,
    clock: Clock,
    *,
    request_id: str,
) -> Answered:
    """Answers a question, which somebody else has asked, and lets the run act on it.

    Raises ApprovalNotFound, ApprovalDecided, ApprovalExpired, ApproverIsRequester, ApproverRoleMissing.
    """
    run, approval = _lock(connection, approval_id)
    _require_open(approval, clock.now())
    assert run is not None, f"approval {approval_id} is open and its run has ended"
    if caller.agent_id in (approval.requested_by, run.created_by, run.agent_id):
        raise ApproverIsRequester(approval.run_id)
    if approval.approver_role and caller.role != approval.approver_role and not caller.holds("admin"):
        raise ApproverRoleMissing(approval_id, approval.approver_role)
    if run.reported:
        decision = Decision.APPROVE if status is ApprovalStatus.APPROVED else Decision.REJECT
        ledger.decide_run(connection, approval.run_id, decision, note, caller, clock, request_id=request_id)
        return Answered(get_approval(connection, approval_id), set())
    approval_store.answer(connection, approval_id, status, decided_by=caller.agent_id, note=note, now=clock.now())
    after = get_approval(connection, approval_id)
    roles = _act(connection, run, after, clock.now())
    _audit(connection, f"approval.{_VERBS[status]}", approval, after, caller.agent_id, request_id, clock)
    return Answered(after, roles)


def due_approvals(connection: Connection, clock: Clock) -> list[str]:
    """Questions whose time is over, EXPIRY_BATCH at most."""
    return approval_store.due_ids(connection, clock.now(), EXPIRY_BATCH)


def expire(connection: Connection, approval_id: str, clock: Clock) -> set[str]:
    """Answers a question whose time is over with no; answers the roles that have something to do now."""
    run, approval = _lock(connection, approval_id)
    if run is None or approval.status is not ApprovalStatus.PENDING:
        return set()
    if run.reported:
        ledger.expire_run(connection, approval.run_id, EXPIRED_NOTE, _EXPIRY, clock)
        return set()
    approval_store.answer(
        connection, approval_id, ApprovalStatus.EXPIRED, decided_by=None, note=EXPIRED_NOTE, now=clock.now()
    )
    after = get_approval(connection, approval_id)
    _audit(connection, "approval.expire", approval, after, _EXPIRY, "", clock)
    return _act(connection, run, after, clock.now())


def use_approval(connection: Connection, lease: Lease, approval_id: str, digest: str, clock: Clock) -> None:
    """Notes that an approved call is about to be made. Raises LeaseLost, and ApprovalNotGranted unless it may be."""
    if not lease_store.is_held(connection, lease):
        raise LeaseLost(lease.run_id)
    approval = approval_store.lock_approval(connection, approval_id)
    if approval is None or approval.run_id != lease.run_id:
        raise ApprovalNotGranted(approval_id, "it is not about this run")
    if approval.status is not ApprovalStatus.APPROVED:
        raise ApprovalNotGranted(approval_id, f"it is {approval.status}")
    if approval.action_digest != digest:
        raise ApprovalNotGranted(approval_id, "it is for another action")
    if is_done(connection, lease.run_id, approval.step_id):
        raise ApprovalNotGranted(approval_id, "its step is done")
    approval_store.use(connection, approval_id, clock.now())


def _add(connection: Connection, run: Row[Any], ask: Ask, requested_by: str, now: datetime) -> str:
    """Stores a question about a run that was suspended for it, and publishes both."""
    approval_id = approval_store.add_approval(connection, run, ask, requested_by, now)
    publish_runs(connection, [RunChange(run.id, RunStatus.AWAITING_APPROVAL, None)], now)
    tell_approval(connection, "requested", run, approval_id, now)
    return approval_id


def _lock(connection: Connection, approval_id: str) -> tuple[Row[Any] | None, Approval]:
    """The run that is asked about, if it is live, its line, and the question, locked. Raises ApprovalNotFound."""
    found = get_approval(connection, approval_id)
    run = queue.lock_live(connection, found.run_id)
    approval = approval_store.lock_approval(connection, approval_id)
    if approval is None:
        raise ApprovalNotFound(approval_id)
    return run, approval


def _require_open(approval: Approval, now: datetime) -> None:
    if approval.status is not ApprovalStatus.PENDING:
        raise ApprovalDecided(approval.id, approval.status)
    if approval.expires_at is not None and approval.expires_at <= now:
        raise ApprovalExpired(approval.id)


def _act(connection: Connection, run: Row[Any], answered: Approval, now: datetime) -> set[str]:
    """Puts the run back into the queue, so that its worker acts on the answer about a step; a whole run that may not
    be done ends here."""
    tell_approval(connection, answered.status.value, run, answered.id, now)
    if answered.status is ApprovalStatus.APPROVED or answered.step_id:
        state, approver = _RUN_STATE[answered.status], answered.decided_by or ""
        lease_store.go_on(connection, run.id, state, approver=approver, note=answered.note, now=now)
        return settle(connection, lines_of([run]), now) | {run.role}
    message = "the approval was rejected" if answered.decided_by else "the approval expired"
    error = RunError(ErrorClass.APPROVAL_REJECTED, f"{message}: {answered.note}", retryable=False, step_id="")
    finish(connection, [Ending(run.id, run.started_at, RunStatus.FAILED, None, error)], now)
    return settle(connection, lines_of([run]), now)


_VERBS = {ApprovalStatus.APPROVED: "approve", ApprovalStatus.REJECTED: "reject"}


def _audit(
    connection: Connection,
    action: str,
    before: Approval | None,
    after: Approval,
    actor: str,
    request_id: str,
    clock: Clock,
) -> None:
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=action,
        actor=actor,
        resource=f"approval/{after.id}",
        before=_audited(before) if before else None,
        after=_audited(after),
        note=after.note,
        request_id=request_id,
    )


def _audited(approval: Approval) -> dict[str, Any]:
    return {
        "run_id": approval.run_id,
        "step_id": approval.step_id,
        "action_digest": approval.action_digest,
        "status": approval.status.value,
        "decided_by": approval.decided_by,
    }

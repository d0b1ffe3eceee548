"""The run ledger: what happens outside is reported, decided on and pruned here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import id_at
from services.pipeline import definition
from services.tasks.errors import ApproverIsRequester, RunNotFound, RunNotReported, RunOfAnotherAgent
from services.tasks.models.approval import ApprovalStatus, Ask
from services.tasks.models.ledger import Decision, NewReportedRun, ReportedRun, amended, decided, settled
from services.tasks.models.run import ApprovalState, Run, RunStatus
from services.tasks.operations.approval_events import tell_approval
from services.tasks.operations.new_run import MAX_PAYLOAD_BYTES
from services.tasks.store import approval as approval_store
from services.tasks.store import history, ledger, tables
from services.tasks.store.domain_event import publish_run

_ANSWERS = {
    Decision.APPROVE: ApprovalStatus.APPROVED,
    Decision.REJECT: ApprovalStatus.REJECTED,
    Decision.CANCEL: ApprovalStatus.CANCELLED,
}


def create_run(connection: Connection, new: NewReportedRun, caller: Caller, traceparent: str, clock: Clock) -> Run:
    """Records a run that happens outside, under an id of the time at which it began: so ids sort by that time."""
    _check_inputs(new.inputs)
    started_at = new.started_at or clock.now()
    run = ReportedRun(
        id_at(started_at),
        caller.agent_id,
        new.status,
        started_at,
        finished_at=new.finished_at,
        duration_ms=new.duration_ms,
        outputs_uri=new.outputs_uri,
        log_excerpt=new.log_excerpt,
    )
    run = settled(run, clock.now())
    ledger.add_run(
        connection,
        run,
        task=new.task,
        batch_id=new.batch_id,
        inputs=new.inputs,
        traceparent=traceparent,
        now=clock.now(),
    )
    _ask_if_awaiting(connection, None, run, clock)
    stored = _stored(connection, run.id)
    publish_run(connection, stored, clock.now())
    return stored


def update_run(connection: Connection, run_id: str, changes: Mapping[str, Any], caller: Caller, clock: Clock) -> Run:
    """Stores what the reporter of a run, or `admin`, says anew."""
    run = _locked(connection, run_id)
    if caller.agent_id != run.created_by and not caller.holds("admin"):
        raise RunOfAnotherAgent(run_id)
    after = amended(run, changes, clock.now())
    if after != run:
        ledger.save_run(connection, run, after, clock.now())
        _ask_if_awaiting(connection, run, after, clock)
    stored = _stored(connection, run_id)
    if after.status is not run.status:
        publish_run(connection, stored, clock.now())
    return stored


def ask(connection: Connection, run_id: str, question: Ask, caller: Caller, clock: Clock) -> str:
    """Has a reported run wait for an answer; answers the question's id. Raises RunTransitionNotAllowed."""
    run = _locked(connection, run_id)
    awaiting = {"status": RunStatus.AWAITING_APPROVAL, "approval_state": ApprovalState.PENDING}
    after = amended(run, awaiting, clock.now())
    ledger.save_run(connection, run, after, clock.now())
    publish_run(connection, _stored(connection, run_id), clock.now())
    return _ask(connection, run_id, question, caller.agent_id, clock)


def decide_run(
    connection: Connection,
    run_id: str,
    decision: Decision,
    note: str,
    caller: Caller,
    clock: Clock,
    *,
    request_id: str,
) -> Run:
    """Approves, rejects or cancels a run that waits for it; what was and what is goes to the audit.

    Its reporter may only cancel, whatever else they may do: not even `admin` approves their own.
    """
    run = _locked(connection, run_id)
    if decision is not Decision.CANCEL and caller.agent_id == run.created_by:
        raise ApproverIsRequester(run_id)
    return _decide(connection, run, decision, caller.agent_id, note, clock, request_id=request_id)


def expire_run(connection: Connection, run_id: str, note: str, actor: str, clock: Clock) -> None:
    """Rejects a reported run about which nobody decided in time."""
    _decide(connection, _locked(connection, run_id), Decision.REJECT, actor, note, clock, expired=True)


def _decide(
    connection: Connection,
    run: ReportedRun,
    decision: Decision,
    actor: str,
    note: str,
    clock: Clock,
    *,
    request_id: str = "",
    expired: bool = False,
) -> Run:
    after = decided(run, decision, "" if expired else actor, note, clock.now())
    question = approval_store.pending_of_run(connection, run.id)
    if question is not None:
        status = ApprovalStatus.EXPIRED if expired else _ANSWERS[decision]
        decided_by = None if expired else actor
        approval_store.answer(connection, question, status, decided_by=decided_by, note=note, now=clock.now())
        tell_approval(connection, status.value, ledger.named(connection, run.id), question, clock.now())
    # Only now, for a run that has ended is somewhere else.
    ledger.save_run(connection, run, after, clock.now())
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=f"run.{decision.name.lower()}",
        actor=actor,
        resource=f"run/{run.id}",
        before=_audited(run),
        after=_audited(after),
        note=note,
        request_id=request_id,
    )
    stored = _stored(connection, run.id)
    publish_run(connection, stored, clock.now())
    return stored


def _ask_if_awaiting(connection: Connection, before: ReportedRun | None, after: ReportedRun, clock: Clock) -> None:
    """A run that its reporter has wait for approval is in the inbox, for as long as it takes."""
    was, now = (run is not None and run.status is RunStatus.AWAITING_APPROVAL for run in (before, after))
    if now and not was:
        _ask(connection, after.id, Ask("", None, "", None), after.created_by, clock)


def _ask(connection: Connection, run_id: str, question: Ask, requested_by: str, clock: Clock) -> str:
    """Stores a question about a run that waits for the answer, and publishes it; answers its id."""
    asked_of = ledger.named(connection, run_id)
    approval_id = approval_store.add_approval(connection, asked_of, question, requested_by, clock.now())
    tell_approval(connection, "requested", asked_of, approval_id, clock.now())
    return approval_id


def with_inputs(connection: Connection, runs: Sequence[Run], max_bytes: int) -> list[Run]:
    """Runs and what they were given, from the first one on, until that is more than `max_bytes` as JSON.

    Those behind have None, as they had.
    """
    inputs = ledger.read_inputs(connection, [run.id for run in runs], max_bytes)
    return [replace(run, inputs=inputs.get(run.id)) for run in runs]


def _check_inputs(inputs: dict[str, Any]) -> None:
    fault = ""
    if definition.is_too_deep(inputs):
        fault = f"is nested deeper than {definition.MAX_DEPTH} levels"
    elif (size := len(orjson.dumps(inputs))) > MAX_PAYLOAD_BYTES:
        fault = f"is {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed"
    if fault:
        raise InvalidArgument.of([Violation("inputs", fault)])


def _locked(connection: Connection, run_id: str) -> ReportedRun:
    run = ledger.lock_run(connection, run_id)
    if run is None:
        raise RunNotReported(run_id) if history.get_run(connection, run_id) else RunNotFound(run_id)
    return run


def _stored(connection: Connection, run_id: str) -> Run:
    run = history.get_run(connection, run_id)
    assert run is not None, f"run {run_id} has vanished while it was locked"
    return run


def _audited(run: ReportedRun) -> dict[str, Any]:
    return {
        "status": run.status.value,
        "approval_state": run.approval_state.value if run.approval_state else None,
        "approver": run.approver or None,
    }

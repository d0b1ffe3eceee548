"""Runs that happen outside and are reported here: which status may follow which, and who says so."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from services.chassis.errors import InvalidArgument, Violation
from services.tasks.errors import RunFinished, RunNotAwaitingApproval, RunTransitionNotAllowed
from services.tasks.models.run import LIVE, ApprovalState, ErrorClass, RunError, RunStatus

_ANY_NEXT = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.SKIPPED, RunStatus.AWAITING_APPROVAL})
TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: _ANY_NEXT | {RunStatus.RUNNING},
    RunStatus.RUNNING: _ANY_NEXT,
    # It is left by a decision, never by a report.
    RunStatus.AWAITING_APPROVAL: frozenset(),
}
"""What a report may make of a run that is not finished. Staying as it is is no transition."""

# What may still be said of a finished run.
_DESCRIPTIVE = frozenset({"outputs_uri", "log_excerpt", "webhook_notified_at"})
_EMPTY_TEXTS = frozenset({"outputs_uri", "log_excerpt", "approver", "approval_note"})
_MILLISECOND = timedelta(milliseconds=1)


class Decision(Enum):
    """How the wait for an approval ends: the run's status, and that of its approval."""

    APPROVE = (RunStatus.SUCCEEDED, ApprovalState.APPROVED)
    REJECT = (RunStatus.FAILED, ApprovalState.REJECTED)
    CANCEL = (RunStatus.SKIPPED, ApprovalState.CANCELLED)

    @property
    def status(self) -> RunStatus:
        return self.value[0]

    @property
    def approval_state(self) -> ApprovalState:
        return self.value[1]


@dataclass(frozen=True)
class ReportedRun:
    """A run as far as its reporter, or who decides on it, may change it."""

    id: str
    created_by: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None = None
    duration_ms: int | None = None
    outputs_uri: str = ""
    log_excerpt: str = ""
    approval_state: ApprovalState | None = None
    approver: str = ""
    approval_note: str = ""
    webhook_notified_at: datetime | None = None
    error: RunError | None = None

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


@dataclass(frozen=True)
class NewReportedRun:
    """What a reporter says of a run at first."""

    task: str
    batch_id: str
    status: RunStatus
    started_at: datetime | None
    """None: now."""
    inputs: dict[str, Any]
    finished_at: datetime | None = None
    duration_ms: int | None = None
    outputs_uri: str = ""
    log_excerpt: str = ""


def settled(run: ReportedRun, now: datetime) -> ReportedRun:
    """The run with what follows from what was said: an approval that is asked for, an end, a duration, an error."""
    if run.status is RunStatus.AWAITING_APPROVAL:
        run = replace(run, approval_state=ApprovalState.PENDING)
    elif not run.is_live:
        error = _reported_error(run) if run.status is RunStatus.FAILED else None
        run = replace(run, finished_at=run.finished_at or now, error=error)
    if run.finished_at is None or run.duration_ms is not None:
        return run
    # A reporter's clock may be behind ours.
    return replace(run, duration_ms=max(0, (run.finished_at - run.started_at) // _MILLISECOND))


def amended(run: ReportedRun, changes: Mapping[str, Any], now: datetime) -> ReportedRun:
    """The run after a report: its fields by name, None for one that is cleared.

    What a report repeats is no change, so that one whose answer was lost may be sent again. Raises InvalidArgument
    for what is not a reporter's to set, RunFinished, RunTransitionNotAllowed.
    """
    told: dict[str, Any] = {
        name: "" if value is None and name in _EMPTY_TEXTS else value for name, value in changes.items()
    }
    new = {name: value for name, value in told.items() if value != getattr(run, name)}
    _refuse_foreign(run, new)
    if not run.is_live:
        if new.keys() - _DESCRIPTIVE:
            raise RunFinished(run.id, run.status)
        return replace(run, **new)
    if "finished_at" in new and "duration_ms" not in told:
        new["duration_ms"] = None
    status = new.get("status", run.status)
    if status is not run.status and status not in TRANSITIONS[run.status]:
        raise RunTransitionNotAllowed(run.id, run.status, status, TRANSITIONS[run.status])
    return settled(replace(run, **new), now)


def decided(run: ReportedRun, decision: Decision, approver: str, note: str, now: datetime) -> ReportedRun:
    """The run after somebody's decision. Raises RunNotAwaitingApproval, so each is decided once."""
    if run.status is not RunStatus.AWAITING_APPROVAL:
        raise RunNotAwaitingApproval(run.id, run.status)
    after = replace(run, status=decision.status, approver=approver, approval_note=note)
    return replace(settled(after, now), approval_state=decision.approval_state)


def _refuse_foreign(run: ReportedRun, new: Mapping[str, Any]) -> None:
    """Raises InvalidArgument for what belongs to who decides."""
    found = []
    if "approver" in new:
        found.append(Violation("approver", "is not to be set: it is who calls approve, reject or cancel"))
    if "approval_note" in new:
        found.append(Violation("approval_note", "is not to be set: the note comes with the decision"))
    if "status" in new and new["status"] is None:
        found.append(Violation("status", "cannot be cleared"))
    is_asking = new.get("status", run.status) is RunStatus.AWAITING_APPROVAL
    if "approval_state" in new and not (is_asking and new["approval_state"] is ApprovalState.PENDING):
        found.append(
            Violation("approval_state", "can only be set to pending, and only with the status awaiting_approval")
        )
    if found:
        raise InvalidArgument.of(found)


def _reported_error(run: ReportedRun) -> RunError:
    """The reporter's own words: a rejection's note, or the last line of what the run has to say."""
    if run.approval_state is not None:
        message = (
            f"the approval was rejected: {run.approval_note}" if run.approval_note else "the approval was rejected"
        )
    else:
        lines = run.log_excerpt.strip().splitlines()
        message = lines[-1].strip() if lines else ""
    return RunError(ErrorClass.REPORTED, message[:2000], retryable=False, step_id="")

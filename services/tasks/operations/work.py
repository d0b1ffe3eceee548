"""Leasing, renewing, reporting and rescuing runs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis.backoff import BackoffStrategy, backoff
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.tasks.errors import LeaseLost, RunsOfAnotherRole
from services.tasks.models.run import (
    MAX_CRASHES,
    RETRYABLE,
    AwaitsApproval,
    Canceled,
    Deferred,
    ErrorClass,
    Failed,
    Lease,
    LeasedRun,
    Released,
    RunError,
    RunReport,
    RunStatus,
    RunStep,
    Succeeded,
)
from services.tasks.operations.approval import ask_of_step
from services.tasks.operations.budget import tell_usage, within_budgets
from services.tasks.store import claim as claim_store
from services.tasks.store import lease as lease_store
from services.tasks.store import step as step_store
from services.tasks.store.claim import Claim
from services.tasks.store.ending import Ending, finish
from services.tasks.store.lease import Postponed
from services.tasks.store.line import lines_of, settle
from services.tasks.store.rows import error_from_json
from services.tasks.store.step import add_steps

RESCUE_BATCH = 500
# How often one call looks for runs while all it finds are kept back by budgets.
_LOOKS = 20
_POISONED = RunError(
    ErrorClass.POISON, f"{MAX_CRASHES} workers died while they held this run", retryable=False, step_id=""
)
_STOPPED = RunError(ErrorClass.CANCELED, "the worker stopped the run", retryable=False, step_id="")


@dataclass(frozen=True)
class Renewed:
    """A lease that goes on."""

    expires_at: datetime | None
    """None: somebody else has the run right now, and nobody can say whether the lease goes on."""
    cancel_requested: bool


@dataclass(frozen=True)
class Receipt:
    """What became of a report."""

    accepted: bool
    cancel_requested: bool


@dataclass(frozen=True)
class Reported:
    """What became of a batch of reports."""

    receipts: list[Receipt]
    """One per report, in their order."""
    roles: set[str]
    """Whose workers may have something to do now."""
    events: int = 0
    """How many events were published of runs that ended."""


@dataclass(frozen=True)
class Rescued:
    """What one round of the reaper did."""

    requeued: int
    poisoned: int
    canceled: int
    roles: set[str]
    """Whose workers may have something to do now."""

    @property
    def expired(self) -> int:
        """How many leases had ended."""
        return self.requeued + self.poisoned + self.canceled


@dataclass
class _Changes:
    """What becomes of runs whose leases end together."""

    endings: list[Ending] = field(default_factory=list)
    postponed: list[Postponed] = field(default_factory=list)
    asked: list[tuple[Row[Any], AwaitsApproval]] = field(default_factory=list)
    given_back: list[Row[Any]] = field(default_factory=list)
    crashed: bool = False
    events: int = 0
    """How many were published of runs that ended, once the changes are applied."""

    def apply(self, connection: Connection, ended: Sequence[Row[Any]], now: datetime) -> set[str]:
        """Writes them, and lets the next in each line come; answers the roles that have something to do now."""
        self.events = finish(connection, self.endings, now)
        lease_store.postpone(connection, self.postponed, now)
        for row, ask in self.asked:
            ask_of_step(connection, row.id, ask, now)
        given_back = [row.id for row in self.given_back]
        lease_store.give_back(connection, given_back, crashed=self.crashed, now=now)
        return settle(connection, lines_of(ended), now) | {row.role for row in self.given_back}


def role_to_lease(caller: Caller, asked: str) -> str:
    """The role whose runs the caller gets who asks for those of a role, or just for work, which is the empty one.

    Who has a role gets runs of that one, and of others only with `admin`. Raises RunsOfAnotherRole.
    """
    if caller.role and asked not in ("", caller.role) and not caller.holds("admin"):
        raise RunsOfAnotherRole(asked, caller.role)
    return asked or caller.role


def lease_runs(connection: Connection, *, worker_id: str, agent_id: str, role: str, limit: int, clock: Clock) -> Claim:
    """Leases due runs of a role to a worker, most urgent first.

    Raises BudgetExceeded when there are some, and the agent's own budget is used up.
    """
    for _ in range(_LOOKS):
        # Unlike an id, the token must not be guessable, so it is random and not a UUIDv7.
        token, now = str(uuid.uuid4()), clock.now()
        claim = claim_store.claim(
            connection, owner=worker_id, agent_id=agent_id, token=token, role=role, limit=limit, now=now
        )
        if not claim.any_blocked:
            return claim
        claim = replace(claim, runs=within_budgets(connection, claim.runs, agent_id, now), contended=True)
        if claim.runs:
            return claim
    return claim


def leave_runs(connection: Connection, leased: Sequence[LeasedRun]) -> None:
    """Leaves runs in the queue after all, as if this transaction had not leased them."""
    claim_store.unclaim(connection, leased)


def release_runs(connection: Connection, leases: Sequence[Lease], clock: Clock) -> set[str]:
    """Takes back runs whose worker never learned that it had them; answers the roles that have something to do."""
    return report_runs(connection, [RunReport(lease, [], Released()) for lease in leases], clock).roles


def renew_runs(connection: Connection, leases: Sequence[Lease], clock: Clock) -> dict[Lease, Renewed]:
    """What becomes of every lease that is still held. One that cannot be had within a second costs no other."""
    held, busy = lease_store.lock_to_extend(connection, leases)
    renewed = dict.fromkeys(busy, Renewed(None, cancel_requested=False))
    if held:
        expires_at = lease_store.extend(connection, [lease.run_id for lease in held], clock.now())
        renewed |= {lease: Renewed(expires_at, row.cancel_requested_at is not None) for lease, row in held.items()}
    return renewed


def report_runs(connection: Connection, reports: Sequence[RunReport], clock: Clock) -> Reported:
    """Records what workers did; a report whose lease is no longer held changes nothing.

    A run that failed waits for its next attempt when its kind of failure may be tried again and it has retries left.
    One that was called off ends as canceled, whatever its worker says but that it succeeded. Raises InvalidArgument
    when a step has the place of another one.
    """
    to_end = any(report.outcome is not None for report in reports)
    held = lease_store.lock_held(connection, [report.lease for report in reports], to_end=to_end)
    receipts, steps, ended, changes = [], [], [], _Changes()
    rows = {row.id: row for row in held.values()}
    for report in reports:
        row = held.get(report.lease)
        receipts.append(Receipt(row is not None, row is not None and row.cancel_requested_at is not None))
        if row is None:
            continue
        steps += [(row.id, step) for step in report.steps]
        if report.outcome is not None:
            # The lease ends with its outcome: what another report says of it later comes too late.
            ended.append(held.pop(report.lease))
            _decide(changes, row, report, clock.now())
    new = add_steps(connection, steps)
    if sum(map(len, new.values())) < len(steps):
        _require_own_places(connection, reports, receipts)
    # Of a report that is sent again nothing is new.
    worked = [(rows[run_id], done) for run_id, done in new.items()]
    if worked and worked[0][0].any_counted:
        tell_usage(connection, worked, clock)
    roles = changes.apply(connection, ended, clock.now()) if ended else set()
    return Reported(receipts, roles, changes.events)


def list_items(connection: Connection, lease: Lease, position: int, *, limit: int, after: int | None) -> list[RunStep]:
    """Up to `limit` recorded items of a step of a run that is held. Raises LeaseLost."""
    if not lease_store.is_held(connection, lease):
        raise LeaseLost(lease.run_id)
    return step_store.list_items(connection, lease.run_id, position, limit=limit, after=after)


def rescue_runs(connection: Connection, clock: Clock) -> Rescued:
    """Returns runs to the queue whose worker let the lease end.

    Ends those that did so to MAX_CRASHES workers, and those that were to stop anyway.
    """
    expired = lease_store.lock_expired(connection, now=clock.now(), limit=RESCUE_BATCH)
    changes = _Changes(crashed=True)
    poisoned = 0
    for row in expired:
        if row.cancel_requested_at is not None:
            changes.endings.append(_canceled(row, None))
        elif row.crashes + 1 >= MAX_CRASHES:
            poisoned += 1
            changes.endings.append(Ending(row.id, row.started_at, RunStatus.FAILED, None, _POISONED))
        else:
            changes.given_back.append(row)
    roles = changes.apply(connection, expired, clock.now()) if expired else set()
    return Rescued(len(changes.given_back), poisoned, len(changes.endings) - poisoned, roles)


def _require_own_places(connection: Connection, reports: Sequence[RunReport], receipts: Sequence[Receipt]) -> None:
    """Raises InvalidArgument for steps that are not recorded because others stand at their places."""
    taken = {index: report for index, report in enumerate(reports) if receipts[index].accepted}
    ids = step_store.step_ids(connection, {report.lease.run_id for report in taken.values()})
    faults = [
        Violation(f"reports[{index}].steps[{number}].position", f"is taken by step {other!r}: count steps from 0")
        for index, report in taken.items()
        for number, step in enumerate(report.steps)
        if step.item is None and (other := ids[report.lease.run_id, step.position]) != step.id
    ]
    if faults:
        raise InvalidArgument.of(faults)


def _decide(changes: _Changes, row: Row[Any], report: RunReport, now: datetime) -> None:
    """Adds what becomes of a run of which an outcome is reported."""
    canceled, uri = row.cancel_requested_at is not None, report.outputs_uri
    match report.outcome:
        case Succeeded(output):
            changes.endings.append(Ending(row.id, row.started_at, RunStatus.SUCCEEDED, output, None, uri))
        case Canceled(output):
            changes.endings.append(_canceled(row, output, uri))
        case Failed(_, output) if canceled:
            changes.endings.append(_canceled(row, output, uri))
        case Deferred() | AwaitsApproval() | Released() if canceled:
            changes.endings.append(_canceled(row, None))
        case Failed() as failed if _may_be_retried(row, failed):
            wait = backoff(BackoffStrategy(row.backoff_strategy), row.retries + 1, failed.retry_after)
            changes.postponed.append(Postponed(row.id, now + wait, failed.error, retries=1))
        case Failed(error, output):
            changes.endings.append(Ending(row.id, row.started_at, RunStatus.FAILED, output, error, uri))
        case Deferred(error, wait):
            changes.postponed.append(Postponed(row.id, now + wait, error, retries=0))
        case AwaitsApproval() as ask:
            changes.asked.append((row, ask))
        case Released():
            changes.given_back.append(row)


def _may_be_retried(row: Row[Any], failed: Failed) -> bool:
    return not failed.final and failed.error.error_class in RETRYABLE and row.retries < row.max_retries


def _canceled(row: Row[Any], output: dict[str, Any] | None, outputs_uri: str = "") -> Ending:
    # The request wrote why.
    reason = error_from_json(row.error) if row.cancel_requested_at is not None else None
    return Ending(row.id, row.started_at, RunStatus.CANCELED, output, reason or _STOPPED, outputs_uri)

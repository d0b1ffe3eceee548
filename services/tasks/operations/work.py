"""Leasing, renewing, reporting and rescuing runs."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.tasks.models.run import (
    MAX_CRASHES,
    ErrorClass,
    Failed,
    Lease,
    LeasedRun,
    Released,
    RunError,
    RunReport,
    RunStatus,
    Succeeded,
)
from services.tasks.store import queue
from services.tasks.store.queue import Ending

RESCUE_BATCH = 500


@dataclass(frozen=True)
class Rescued:
    """What one round of the reaper did."""

    requeued: int
    poisoned: int


def lease_runs(connection: Connection, worker_id: str, limit: int, clock: Clock) -> list[LeasedRun]:
    """Leases due runs to a worker, most urgent first."""
    # Unlike an id, the token must not be guessable, so it is random and not a UUIDv7.
    return queue.claim(connection, owner=worker_id, token=str(uuid.uuid4()), limit=limit, now=clock.now())


def leave_runs(connection: Connection, leased: Sequence[LeasedRun]) -> None:
    """Leaves runs in the queue after all, as if this transaction had not leased them."""
    queue.unclaim(connection, [run.lease.run_id for run in leased])


def release_runs(connection: Connection, leases: Sequence[Lease], clock: Clock) -> None:
    """Takes back runs whose worker never learned that it had them."""
    held = queue.lock_held(connection, leases)
    queue.requeue(connection, [lease.run_id for lease in held], crashed=False, now=clock.now())


def renew_runs(connection: Connection, leases: Sequence[Lease], clock: Clock) -> dict[Lease, datetime]:
    """The new end of every lease that is still held."""
    held = queue.lock_held(connection, leases)
    if not held:
        return {}
    expires_at = queue.extend(connection, [lease.run_id for lease in held], clock.now())
    return dict.fromkeys(held, expires_at)


def report_runs(connection: Connection, reports: Sequence[RunReport], clock: Clock) -> list[bool]:
    """Records what workers did; answers for each report whether its lease was still held."""
    held = queue.lock_held(connection, [report.lease for report in reports])
    accepted, steps, endings, released = [], [], [], []
    for report in reports:
        row = held.get(report.lease)
        accepted.append(row is not None)
        if row is None:
            continue
        steps += [(row.id, step) for step in report.steps]
        if report.outcome is None:
            continue
        # The lease ends with its outcome: what another report says of it later comes too late.
        del held[report.lease]
        match report.outcome:
            case Succeeded(output):
                endings.append(Ending(row, RunStatus.SUCCEEDED, output, None))
            case Failed(error, output):
                endings.append(Ending(row, RunStatus.FAILED, output, error))
            case Released():
                released.append(row.id)
    queue.add_steps(connection, steps)
    queue.finish(connection, endings, clock.now())
    queue.requeue(connection, released, crashed=False, now=clock.now())
    return accepted


def rescue_runs(connection: Connection, clock: Clock) -> Rescued:
    """Returns runs to the queue whose worker let the lease end; ends those that did so to MAX_CRASHES workers."""
    expired = queue.lock_expired(connection, now=clock.now(), limit=RESCUE_BATCH)
    poisoned = [row for row in expired if row.crashes + 1 >= MAX_CRASHES]
    requeued = [row.id for row in expired if row.crashes + 1 < MAX_CRASHES]
    message = f"{MAX_CRASHES} workers died while they held this run"
    error = RunError(ErrorClass.POISON, message, retryable=False, step_id="")
    queue.finish(connection, [Ending(row, RunStatus.FAILED, None, error) for row in poisoned], clock.now())
    queue.requeue(connection, requeued, crashed=True, now=clock.now())
    return Rescued(len(requeued), len(poisoned))

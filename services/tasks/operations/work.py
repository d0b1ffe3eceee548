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
    """Leases due runs to a worker."""
    # Unlike an id, the token must not be guessable, so it is random and not a UUIDv7.
    return queue.claim(connection, owner=worker_id, token=str(uuid.uuid4()), limit=limit, now=clock.now())


def release_runs(connection: Connection, leased: Sequence[LeasedRun], clock: Clock) -> None:
    """Takes back runs whose worker never learned that it had them."""
    held = queue.lock_held(connection, [run.lease for run in leased])
    queue.requeue(connection, list(held), crashed=False, now=clock.now())


def renew_runs(connection: Connection, leases: Sequence[Lease], clock: Clock) -> dict[str, datetime]:
    """The new end of every lease that is still held, by run id."""
    held = queue.lock_held(connection, leases)
    if not held:
        return {}
    expires_at = queue.extend(connection, held, clock.now())
    return dict.fromkeys(held, expires_at)


def report_runs(connection: Connection, reports: Sequence[RunReport], clock: Clock) -> list[bool]:
    """Records what workers did; answers for each report whether its lease was still held."""
    held = queue.lock_held(connection, [report.lease for report in reports])
    accepted, steps, endings, released = [], [], [], []
    for report in reports:
        run_id = report.lease.run_id
        row = held.get(run_id)
        # Two reports of one run with different leases cannot both be right.
        if row is None or Lease(run_id, row.attempt, row.lease_token) != report.lease:
            accepted.append(False)
            continue
        accepted.append(True)
        steps += [(run_id, step) for step in report.steps]
        if report.outcome is None:
            continue
        del held[run_id]
        match report.outcome:
            case Succeeded(output):
                endings.append(Ending(row, RunStatus.SUCCEEDED, output, None))
            case Failed(error, output):
                endings.append(Ending(row, RunStatus.FAILED, output, error))
            case Released():
                released.append(run_id)
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

"""Keeping the history for as long as it is wanted."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import EPOCH, Clock
from services.chassis.errors import InvalidArgument, Violation
from services.tasks.models.pruning import Age, Pruned
from services.tasks.store import approval as approval_store
from services.tasks.store import file as file_store
from services.tasks.store import retention, tables

BATCH = 1000
_FROM_FILE_TO_END = timedelta(days=1)


def days_ago(days: int, clock: Clock) -> datetime:
    """The cutoff of what is older than so many days."""
    return max(clock.now() - timedelta(days=days), EPOCH)


def require_past(cutoff: datetime, field: str, clock: Clock) -> None:
    """Raises InvalidArgument, naming the request's field, for a cutoff that nobody can have meant."""
    if cutoff > clock.now():
        raise InvalidArgument.of([Violation(field, "lies in the future")])


def prune_batch(
    connection: Connection, cutoff: datetime, limit: int, clock: Clock, *, age: Age = Age.FINISHED
) -> Pruned:
    """Deletes up to `limit` finished runs that are older than `cutoff`, the oldest first, and their steps.

    Live runs are never touched. It is complete when there were fewer: call it again until then.
    """
    cutoff = min(cutoff, clock.now())
    run_ids = retention.oldest_runs(connection, cutoff, age, limit)
    runs, steps = retention.delete_runs(connection, run_ids)
    return Pruned(runs=runs, steps=steps, complete=len(run_ids) < limit)


def prune_occurrences(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> Pruned:
    """Deletes up to `limit` occurrences that were decided before `cutoff`, the oldest first."""
    deleted = retention.delete_occurrences(connection, min(cutoff, clock.now()), limit)
    return Pruned(occurrences=deleted, complete=deleted < limit)


def prune_answers(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> int:
    """Deletes up to `limit` approvals that were decided before `cutoff`, unless their runs go on; answers how many."""
    return approval_store.delete_answered(connection, min(cutoff, clock.now()), limit)


def prune_files(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> int:
    """Deletes up to `limit` files of runs that ended before `cutoff`; answers how many. Call it again until fewer.

    A run's own output is stored just before the run ends, and that of a step stays for as long as the step does.
    """
    return file_store.delete_files(connection, min(cutoff, clock.now()) - _FROM_FILE_TO_END, limit)


def count_prunable(connection: Connection, cutoff: datetime, *, age: Age = Age.FINISHED) -> Pruned:
    """How much is older than `cutoff`."""
    runs, steps, occurrences = retention.count(connection, cutoff, age)
    return Pruned(runs, steps, occurrences)


def audit_pruning(
    connection: Connection, cutoff: datetime, pruned: Pruned, actor: str, request_id: str, clock: Clock
) -> None:
    """Publishes that an agent deleted what was older than `cutoff`."""
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action="run.prune",
        actor=actor,
        resource="runs",
        after={
            "cutoff": cutoff.isoformat(),
            "runs": pruned.runs,
            "steps": pruned.steps,
            "occurrences": pruned.occurrences,
            "complete": pruned.complete,
        },
        request_id=request_id,
    )

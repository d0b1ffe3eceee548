"""Keeping the history for as long as it is wanted."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import EPOCH, Clock
from services.chassis.errors import InvalidArgument, Violation
from services.tasks.models.pruning import Age, Pruned
from services.tasks.store import approval as approval_store
from services.tasks.store import event as event_store
from services.tasks.store import file as file_store
from services.tasks.store import retention, tables

BATCH = 1000
FILES_BATCH = 100
_FROM_FILE_TO_END = timedelta(days=1)
# Of events that are deleted at once: one may have thousands.
_MAX_DELIVERIES = 10_000


def days_ago(days: int, clock: Clock) -> datetime:
    """The cutoff of what is older than so many days."""
    return max(clock.now() - timedelta(days=days), EPOCH)


def hours_ago(hours: int, clock: Clock) -> datetime:
    """The cutoff of what is older than so many hours."""
    return max(clock.now() - timedelta(hours=hours), EPOCH)


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


def prune_answers(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> Pruned:
    """Deletes up to `limit` approvals that were decided before `cutoff`, unless their runs go on."""
    return Pruned(complete=approval_store.delete_answered(connection, min(cutoff, clock.now()), limit) < limit)


def prune_files(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> Pruned:
    """Deletes up to `limit` files of runs that ended before `cutoff`. Call it again until it is complete.

    A run's own output is stored just before the run ends, and that of a step stays for as long as the step does.
    """
    before = min(cutoff, clock.now()) - _FROM_FILE_TO_END
    return Pruned(complete=file_store.delete_files(connection, before, limit) < limit)


def prune_events(connection: Connection, cutoff: datetime, limit: int, clock: Clock) -> Pruned:
    """Deletes up to `limit` events that were published before `cutoff` and matched with all tasks, the oldest first."""
    deleted, complete = event_store.delete_events(connection, min(cutoff, clock.now()), limit, _MAX_DELIVERIES)
    return Pruned(events=deleted, complete=complete)


def count_prunable(connection: Connection, cutoff: datetime, *, age: Age = Age.FINISHED) -> Pruned:
    """How much is older than `cutoff`."""
    runs, steps, occurrences, events = retention.count(connection, cutoff, age)
    return Pruned(runs, steps, occurrences, events)


def audit_pruning(
    connection: Connection, cutoff: datetime, pruned: Pruned, actor: str, request_id: str, clock: Clock
) -> None:
    """Publishes that an agent deleted what was older than `cutoff`."""
    deleted = {
        "runs": pruned.runs,
        "steps": pruned.steps,
        "occurrences": pruned.occurrences,
        "events": pruned.events,
    }
    _audit(connection, "run", deleted, cutoff, pruned, actor, request_id, clock)


def audit_events(
    connection: Connection, cutoff: datetime, pruned: Pruned, actor: str, request_id: str, clock: Clock
) -> None:
    """Publishes that an agent deleted the events that were older than `cutoff`."""
    _audit(connection, "event", {"events": pruned.events}, cutoff, pruned, actor, request_id, clock)


def _audit(
    connection: Connection,
    noun: str,
    deleted: dict[str, int],
    cutoff: datetime,
    pruned: Pruned,
    actor: str,
    request_id: str,
    clock: Clock,
) -> None:
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action=f"{noun}.prune",
        actor=actor,
        resource=f"{noun}s",
        after={"cutoff": cutoff.isoformat(), **deleted, "complete": pruned.complete},
        request_id=request_id,
    )

"""Keeping runs back whose budget is used up, and telling what runs use."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from services.chassis import outbox
from services.chassis.clock import Clock
from services.chassis.ids import is_uuid
from services.chassis.outbox import Message, MessageRefused
from services.tasks.errors import BudgetExceeded
from services.tasks.models.budget import Standing, Subject, SubjectKind
from services.tasks.models.run import ErrorClass, LeasedRun, RunError, RunStep, StepStatus
from services.tasks.store import budget as store
from services.tasks.store import claim, lease, queue, tables
from services.tasks.store.line import settle

ASKED_AGAIN = timedelta(seconds=60)
"""After how long a run that was kept back is looked at again: so soon what was given a higher limit goes on."""
_MAX_REASON = 500
Worked = tuple[Row[Any], Sequence[RunStep]]
"""A run, and what is newly known of its steps."""


def take_budgets(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Notes who is blocked or counted, and calls off what is under way of those who are blocked. Raises MessageRefused.

    A step that runs is not interrupted: its run ends before the next one.
    """
    now = clock.now()
    for message in messages:
        standing = _told(message)
        if store.save_standing(connection, standing) and standing.blocks(now):
            _call_off(connection, standing, now)


def within_budgets(
    connection: Connection, leased: Sequence[LeasedRun], agent_id: str, now: datetime
) -> list[LeasedRun]:
    """Of runs that this transaction has leased, those that may be done; the others go back to the queue for a minute.

    Raises BudgetExceeded when it is the agent who leases them that may do no more.
    """
    leases_them: Subject = (SubjectKind.AGENT, agent_id)
    subjects = {leases_them, *(subject for run in leased for subject in _subjects(run.created_by, run.task_id))}
    blocking = {one.subject: one for one in store.standings(connection, subjects) if one.blocks(now)}
    if own := blocking.get(leases_them):
        raise BudgetExceeded(own.reason, own.blocked_until, now)
    kept_back = [(run, one) for run in leased if (one := _in_the_way(blocking, run)) is not None]
    if kept_back:
        _put_back(connection, kept_back, now)
    ids = {run.lease.run_id for run, _ in kept_back}
    return [run for run in leased if run.lease.run_id not in ids]


def tell_usage(connection: Connection, worked: Collection[Worked], clock: Clock) -> None:
    """Publishes what new steps of runs have used, of those whose agent or task is counted."""
    subjects = {subject for row, _ in worked for subject in _subjects(row.created_by, row.task_id)}
    counted = {one.subject for one in store.standings(connection, subjects) if one.is_counted}
    used = []
    for row, steps in worked:
        # Of a step with items, these are what was done.
        ran = [step for step in steps if step.status is not StepStatus.SKIPPED and step.items is None]
        if ran and not counted.isdisjoint(_subjects(row.created_by, row.task_id)):
            told = {"agent_id": row.created_by, "task_id": row.task_id or "", "run_id": row.id}
            calls, duration = sum(step.tries for step in ran), sum(step.duration_ms for step in ran)
            used.append(told | {"tool_calls": calls, "wall_time_ms": duration})
    outbox.publish_all(connection, tables.outbox, outbox.USAGE, used, clock)


def _told(message: Message) -> Standing:
    match message.payload:
        case {
            "kind": "agent" | "task" as kind,
            "id": str(subject_id),
            "is_blocked": bool(is_blocked),
            "blocked_until": None | str() as until,
            "is_counted": bool(is_counted),
            "reason": str(reason),
        } if is_uuid(subject_id):
            return Standing(
                kind=SubjectKind(kind),
                subject_id=subject_id,
                is_blocked=is_blocked,
                blocked_until=datetime.fromisoformat(until) if until else None,
                is_counted=is_counted,
                reason=reason[:_MAX_REASON],
                told_by=message.id,
            )
    raise MessageRefused(message.id, "has not the fields kind, id, is_blocked, blocked_until, is_counted and reason")


def _call_off(connection: Connection, standing: Standing, now: datetime) -> None:
    held = sorted(store.leased_runs(connection, standing.subject))
    live = [row for run_id in held if (row := queue.lock_live(connection, run_id)) and row.lease_token]
    if live:
        queue.cancel_live(connection, live, _error(standing), now)


def _put_back(connection: Connection, kept_back: Sequence[tuple[LeasedRun, Standing]], now: datetime) -> None:
    postponed = [
        lease.Postponed(run.lease.run_id, _asked_again(standing, now), _error(standing), retries=0)
        for run, standing in kept_back
    ]
    lease.postpone(connection, postponed, now)
    claim.unclaim(connection, [run for run, _ in kept_back])
    settle(connection, store.lines_of_runs(connection, [run.lease.run_id for run, _ in kept_back]), now)


def _asked_again(standing: Standing, now: datetime) -> datetime:
    soon = now + ASKED_AGAIN
    return min(soon, standing.blocked_until) if standing.blocked_until else soon


def _error(standing: Standing) -> RunError:
    return RunError(ErrorClass.BUDGET_EXCEEDED, standing.reason, retryable=False, step_id="")


def _in_the_way(blocking: Mapping[Subject, Standing], run: LeasedRun) -> Standing | None:
    found = (blocking.get(subject) for subject in _subjects(run.created_by, run.task_id))
    return next((one for one in found if one is not None), None)


def _subjects(created_by: str, task_id: str | None) -> Iterator[Subject]:
    yield SubjectKind.AGENT, created_by
    if task_id is not None:
        yield SubjectKind.TASK, task_id

"""Probing conditions: who asks, what was told, and what that fires."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.pipeline import definition
from services.tasks.models.condition import (
    KEPT,
    MAX_RESULT_BYTES,
    Condition,
    Evaluation,
    LeasedProbe,
    ProbeLease,
    ProbeReport,
    ProbeState,
)
from services.tasks.models.occurrence import Occurrence
from services.tasks.models.run import NewRun
from services.tasks.models.task import Task
from services.tasks.operations.new_run import new_run
from services.tasks.operations.scheduling import NewTrace, fire_now
from services.tasks.operations.task import get_task
from services.tasks.store import condition as store
from services.tasks.store import task as task_store

# An answer may have 4 MiB, and JSON has up to five and a half times as much on the wire.
_MAX_LEASED_BYTES = 700 * 1024


@dataclass(frozen=True)
class Reported:
    """What a batch of reports did."""

    accepted: list[bool]
    """For each report whether its lease was held."""
    evaluations: list[Evaluation]
    occurrences: list[Occurrence]
    runs: list[NewRun]


def lease_probes(connection: Connection, *, owner: str, limit: int, clock: Clock) -> list[LeasedProbe]:
    """Leases up to `limit` probes that are due; fewer, but one at least, when they are large."""
    now, room = clock.now(), _MAX_LEASED_BYTES
    leased: list[LeasedProbe] = []
    for due in store.lock_due(connection, now=now, limit=limit):
        room -= len(orjson.dumps([due.task.condition, due.task.payload.get("params")]))
        if leased and room < 0:
            break
        lease = ProbeLease(due.task.id, str(uuid.uuid4()))
        until = now + Condition.of(due.task).lease
        store.lease(connection, due.task.id, owner=owner, token=lease.token, now=now, until=until)
        leased.append(LeasedProbe(lease, due.evaluations + 1, due.task, now, now - due.due_at))
    return leased


def report_probes(
    connection: Connection, reports: Sequence[ProbeReport], new_trace: NewTrace, clock: Clock
) -> Reported:
    """Stores what probes told and fires what is to fire; `new_trace` begins a trace for a task's run.

    A report whose lease is no longer held changes nothing. Raises InvalidArgument for a result that cannot be kept.
    """
    _require_results(reports)
    now = clock.now()
    # The tasks first: whoever changes one holds it, and then ends its lease.
    tasks = task_store.keep_tasks(connection, {report.lease.task_id for report in reports})
    held = store.lock_held(connection, [report.lease for report in reports], now)
    told = [_Told(tasks[lease.task_id], state, report) for report, lease, state in _each_once(reports, held)]
    firing = {one.task.id: one for one in told if one.fires(now)}
    occurrences, runs = fire_now(connection, [one.task for one in firing.values()], _run_of(firing, new_trace), now)
    outcome_of = {occurrence.task_id: occurrence for occurrence in occurrences}
    evaluations = [_settle(connection, one, outcome_of.get(one.task.id), now) for one in told]
    accepted = [report.lease in held for report in reports]
    return Reported(accepted, [one for one in evaluations if one], occurrences, runs)


def list_evaluations(connection: Connection, task_id: str, *, limit: int, before: int | None) -> Sequence[Evaluation]:
    """Up to `limit` evaluations of a task, newest first, before the number `before`. Raises TaskNotFound."""
    get_task(connection, task_id)
    return store.list_evaluations(connection, task_id, limit=limit, before=before)


@dataclass(frozen=True)
class _Told:
    """A report whose lease is held."""

    task: Task
    state: ProbeState
    report: ProbeReport

    def fires(self, now: datetime) -> bool:
        if self.report.holds is None:
            return False
        return Condition.of(self.task).fires(
            holds=self.report.holds, before=self.state.last_holds, last_fired_at=self.state.last_fired_at, now=now
        )

    def next_probe_at(self, now: datetime) -> datetime:
        """One period after it was begun, so that the time which it takes does not add up."""
        assert self.state.leased_at is not None
        return max(now, self.state.leased_at + Condition.of(self.task).every)


def _each_once(
    reports: Iterable[ProbeReport], held: dict[ProbeLease, ProbeState]
) -> Iterable[tuple[ProbeReport, ProbeLease, ProbeState]]:
    """The reports whose leases are held; the first of each lease."""
    first = {report.lease: report for report in reversed(list(reports))}
    return ((first[lease], lease, state) for lease, state in held.items())


def _run_of(firing: dict[str, _Told], new_trace: NewTrace) -> Any:
    def run_of(task: Task, due_at: datetime) -> NewRun:
        event = {"result": firing[task.id].report.result}
        return new_run(task, due_at=due_at, traceparent=new_trace(task.id), event=event)

    return run_of


def _settle(connection: Connection, one: _Told, fired: Occurrence | None, now: datetime) -> Evaluation | None:
    report, state = one.report, one.state
    if report.released:
        store.restart(connection, one.task.id, now)
        return None
    evaluation = Evaluation(
        task_id=one.task.id,
        number=state.evaluations + 1,
        evaluated_at=now,
        holds=report.holds,
        excerpt=report.excerpt,
        result_digest=report.result_digest,
        error=report.error,
        outcome=fired.outcome if fired else None,
        run_id=fired.run_id if fired else None,
    )
    store.settle(
        connection,
        evaluation,
        next_probe_at=one.next_probe_at(now),
        last_holds=state.last_holds if report.holds is None else report.holds,
        last_fired_at=now if fired else state.last_fired_at,
        kept=KEPT,
    )
    return evaluation


def _require_results(reports: Sequence[ProbeReport]) -> None:
    faults = []
    for index, report in enumerate(reports):
        field = f"reports[{index}].evaluated.result"
        if definition.is_too_deep({"result": report.result}):
            faults.append(Violation(field, f"is nested deeper than {definition.MAX_DEPTH} levels"))
        elif (size := len(orjson.dumps(report.result))) > MAX_RESULT_BYTES:
            faults.append(Violation(field, f"is {size} bytes as JSON, at most {MAX_RESULT_BYTES} are allowed"))
    if faults:
        raise InvalidArgument.of(faults)

"""What becomes of the nominal times of a task that have come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.chassis.clock import instant_text
from services.tasks.models.occurrence import Occurrence, Outcome
from services.tasks.models.run import NewRun
from services.tasks.models.schedule import CAP, GRACE, WINDOW, Due, Span
from services.tasks.models.task import Misfire, Overlap, Task


@dataclass(frozen=True)
class Judgement:
    """One outcome for each time, and the runs that they start."""

    occurrences: list[Occurrence] = field(default_factory=list)
    runs: list[NewRun] = field(default_factory=list)


def judge(
    task: Task,
    due: Due,
    now: datetime,
    *,
    live_run: str | None,
    new_run: Callable[[Task, datetime], NewRun],
    take: Callable[[Task, NewRun], str | None],
) -> Judgement:
    """Gives each time that has come its outcome, oldest first.

    `live_run` is an unfinished run of the task. `new_run` makes the run of a time, given when that was due. `take`
    answers the run that already stands for the task's dedupe key, or None when the new one now does. A time that does
    not run was `paused` when it came while the task was, else `missed`. One that was snoozed is judged by itself, and
    those that the snooze has carried along are `missed`.
    """
    judgement = Judgement()
    for span in due.passed:
        judgement.occurrences.append(_passed(task, span, now))
    if due.snoozed is not None:
        judgement.occurrences.append(_carried_along(task, due.snoozed, now))
    for nominal in due.times:
        if reason := _not_made_up_for(task, nominal, due, now):
            judgement.occurrences.append(_unrun(task, nominal, None, reason, now))
        elif live_run and task.overlap is Overlap.SKIP:
            reason = "the run before it was not finished"
            judgement.occurrences.append(_in_the_way(task, nominal, Outcome.SKIPPED_OVERLAP, reason, live_run, now))
        else:
            run = new_run(task, fires_at(task, nominal))
            live_run = _start(judgement, task, nominal, run, take(task, run), now) or live_run
    return judgement


def fires_at(task: Task, nominal: datetime) -> datetime:
    """When a time is due: the next one can have been snoozed."""
    if nominal == task.next_scheduled_for and task.next_fire_at is not None:
        return task.next_fire_at
    return nominal


def too_late(misfire: Misfire, late: timedelta) -> str:
    """Why a time that is so late does not run, whatever else is due; empty when it may."""
    if late > WINDOW:
        return f"noticed more than {WINDOW.seconds // 60} min late"
    if misfire is Misfire.SKIP and late > GRACE:
        return f"noticed more than {GRACE.seconds} s late"
    return ""


def _start(
    judgement: Judgement, task: Task, nominal: datetime, run: NewRun, holder: str | None, now: datetime
) -> str | None:
    """Starts a run, unless another stands for it; answers its id."""
    if holder is not None:
        reason = "a run with the same dedupe key is not older than the window"
        judgement.occurrences.append(_in_the_way(task, nominal, Outcome.SUPPRESSED_DUPLICATE, reason, holder, now))
        return None
    judgement.runs.append(run)
    judgement.occurrences.append(Occurrence(task.id, nominal, None, Outcome.RAN, "", run.id, now))
    return run.id


def _not_made_up_for(task: Task, nominal: datetime, due: Due, now: datetime) -> str:
    """Why a time within the window does not run; empty when it does."""
    fire_at = fires_at(task, nominal)
    # Who has snoozed a time wants that one to run, whatever has come meanwhile.
    if task.misfire is Misfire.RUN_ONCE and nominal != due.times[-1] and fire_at == nominal:
        return "a later time was due as well"
    return too_late(task.misfire, now - fire_at)


def _passed(task: Task, span: Span, now: datetime) -> Occurrence:
    reason = too_late(Misfire.RUN_ALL, now - span.last) or f"more than {CAP} times were due at once"
    return _unrun(task, span.first, _through(span), reason, now)


def _carried_along(task: Task, span: Span, now: datetime) -> Occurrence:
    assert task.next_fire_at is not None
    reason = f"the task was snoozed until {instant_text(task.next_fire_at)}"
    return Occurrence(task.id, span.first, _through(span), Outcome.MISSED, reason, None, now)


def _through(span: Span) -> datetime | None:
    return span.last if span.last > span.first else None


def _unrun(task: Task, nominal: datetime, through: datetime | None, reason: str, now: datetime) -> Occurrence:
    if task.paused_at is not None and fires_at(task, nominal) >= task.paused_at:
        return Occurrence(task.id, nominal, through, Outcome.PAUSED, "the task was paused", None, now)
    return Occurrence(task.id, nominal, through, Outcome.MISSED, reason, None, now)


def _in_the_way(task: Task, nominal: datetime, outcome: Outcome, reason: str, run_id: str, now: datetime) -> Occurrence:
    return Occurrence(task.id, nominal, None, outcome, reason, run_id, now)

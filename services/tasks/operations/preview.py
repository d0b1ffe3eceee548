"""Looking at a task before it is created. Nothing is stored, and no tool is called."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock, instant_text
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import new_id
from services.pipeline import definition
from services.pipeline.cel import Finding, Subject, compile_filter, compile_question
from services.pipeline.errors import ExpressionError
from services.pipeline.references import NO_EVENT, PROBE_ROOTS, ROOTS
from services.pipeline.sketch import StepSketch, sketch
from services.tasks.errors import CreatedByNotCaller
from services.tasks.models.judgement import too_late
from services.tasks.models.schedule import FireTime, ScheduleFault, fire_times, parse_schedule
from services.tasks.models.task import NewTask, ScheduleKind
from services.tasks.models.topic import example_of, matches, pattern_fault
from services.tasks.operations.task import require_own_name
from services.tasks.operations.task_faults import faults_of, filter_faults

FIRE_TIMES = 20
MAX_FAULTS = 200
"""Faults that are told; a payload may have as many as it has letters."""

_MICROSECOND = timedelta(microseconds=1)
# These say by themselves that nothing can be read at all.
_UNREADABLE = {"payload", "payload.pipeline"}
_RESULT = "result"
_FIRST_STEP, _PROBE = "payload.pipeline[0]", "condition.probe"


@dataclass(frozen=True)
class Preview:
    """What a task would do."""

    faults: list[Violation]
    steps: list[StepSketch]
    fire_times: list[FireTime]
    event_matches: bool | None = None
    """Whether the event of the sample would make a run; None when there is none, or it cannot be told."""
    event_reason: str = ""
    """Why it would not, or why that cannot be told."""
    condition_holds: bool | None = None
    """Whether the task's expression is true of the result of the sample; None when there is none, or it cannot be."""
    condition_reason: str = ""
    """Why that cannot be told."""
    probe: StepSketch | None = None


def preview_task(
    connection: Connection, new: NewTask, sample: Mapping[str, Any], caller: Caller, clock: Clock
) -> Preview:
    """Every fault of the task, its steps rendered with `sample`, and when it would fire.

    Raises InvalidArgument only for the sample itself.
    """
    if sample_faults := _sample_faults(sample, new.schedule_kind):
        raise InvalidArgument.of(sample_faults)
    now = clock.now()
    _, task_faults = faults_of(connection, new, now)
    faults = [*_name_faults(new, caller), *task_faults]
    readable = _UNREADABLE.isdisjoint(fault.field for fault in faults)
    steps = sketch(new.payload, _context(new, sample, now)) if readable else []
    matches, reason = _ask_filter(new, sample)
    holds, why = _ask_condition(new, sample)
    probe = _sketch_probe(new, sample, now)
    return Preview(_most(faults), steps, _fire_times(new, now), matches, reason, holds, why, probe)


def _name_faults(new: NewTask, caller: Caller) -> list[Violation]:
    try:
        require_own_name(new, caller)
    except CreatedByNotCaller as refusal:
        return [Violation("created_by", refusal.message)]
    return []


def _sample_faults(sample: Mapping[str, Any], kind: ScheduleKind) -> list[Violation]:
    faults = [
        Violation(f"sample.{name}", f"is not what templates read: that is {', '.join(ROOTS)}")
        for name in sample
        if name not in ROOTS and not (name == _RESULT and kind is ScheduleKind.CONDITION)
    ]
    if "event" in sample and kind is ScheduleKind.CONDITION:
        faults.append(Violation("sample.event", "is made of sample.result for schedule_kind condition: give that"))
    elif "event" in sample and kind is not ScheduleKind.EVENT:
        faults.append(Violation("sample.event", NO_EVENT))
    run = sample.get("run")
    if kind is ScheduleKind.EVENT and isinstance(run, Mapping) and not isinstance(run.get("topic", ""), str):
        faults.append(Violation("sample.run.topic", "must be a string"))
    return faults + [
        Violation(f"sample.{name}", "must be an object")
        for name in ROOTS
        if name != "now" and name in sample and not isinstance(sample[name], Mapping)
    ]


def _ask_filter(new: NewTask, sample: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the event of the sample would make a run, and why not."""
    if "event" not in sample or filter_faults(new.schedule_kind, new.event_filter):
        return None, ""
    topic = _topic(new, sample)
    if not pattern_fault(new.schedule_expr) and not matches(new.schedule_expr, topic):
        return False, f"the task does not wait for {topic!r}: {new.schedule_expr!r} does not match it"
    if not new.event_filter:
        return True, ""
    try:
        holds = compile_filter(new.event_filter).holds(Subject(topic, sample["event"]))
    except ExpressionError as error:
        return None, f"the filter {error}"
    return holds, "" if holds else "the filter is not true of it"


def _ask_condition(new: NewTask, sample: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Whether the expression is true of the result of the sample, or why that cannot be told."""
    if new.schedule_kind is not ScheduleKind.CONDITION:
        return None, ""
    if _RESULT not in sample:
        return None, "sample.result is missing: give what the probe would answer"
    try:
        return compile_question(new.schedule_expr).holds(Finding(sample[_RESULT], _params(new, sample))), ""
    except ExpressionError as error:
        return None, f"the expression {error}"


def _sketch_probe(new: NewTask, sample: Mapping[str, Any], now: datetime) -> StepSketch | None:
    """The probe with its input rendered, as far as that can be."""
    if new.schedule_kind is not ScheduleKind.CONDITION or new.condition is None:
        return None
    probe = new.condition["probe"]
    if definition.is_too_deep(probe):
        return None
    context = {name: value for name, value in _context(new, sample, now).items() if name in PROBE_ROOTS}
    (sketched,) = sketch({"pipeline": [{"id": "probe", **probe}]}, context | {"steps": {}})
    renamed = [replace(one, field=one.field.replace(_FIRST_STEP, _PROBE, 1)) for one in sketched.unresolved]
    return replace(sketched, unresolved=renamed)


def _params(new: NewTask, sample: Mapping[str, Any]) -> dict[str, Any]:
    params = new.payload.get("params", {})
    return {**(params if isinstance(params, Mapping) else {}), **sample.get("params", {})}


def _topic(new: NewTask, sample: Mapping[str, Any]) -> str:
    topic: str = sample.get("run", {}).get("topic", example_of(new.schedule_expr))
    return topic


def _context(new: NewTask, sample: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What a worker would give to templates, with what is known only later out of the sample, or made up."""
    instant = instant_text(now)
    is_event = new.schedule_kind is ScheduleKind.EVENT
    event = {"event": sample["event"]} if "event" in sample else {}
    if _RESULT in sample:
        event = {"event": {_RESULT: sample[_RESULT]}}
    of_event = {"event_id": new_id(), "topic": _topic(new, sample)} if is_event else {"event_id": None, "topic": None}
    return {
        **event,
        "now": sample.get("now", instant),
        "params": _params(new, sample),
        "steps": sample.get("steps", {}),
        "run": {"id": new_id(), "attempt": 1, "created_at": instant, **of_event, **sample.get("run", {})},
        "task": {"id": new_id(), "title": new.title, **sample.get("task", {})},
    }


def _fire_times(new: NewTask, now: datetime) -> list[FireTime]:
    try:
        schedule = parse_schedule(new.schedule_kind, new.schedule_expr, new.timezone, now)
    except ScheduleFault:
        return []
    first = schedule.first(now)
    if first is None or first > now:
        return fire_times(schedule, new.timezone, now, FIRE_TIMES)
    # A single instant that has come is due as soon as the task is there.
    reason = too_late(new.misfire, now - first)
    note = f"has passed: it would be missed, {reason}" if reason else "has passed: it would run at once"
    return [replace(time, note=note) for time in fire_times(schedule, new.timezone, first - _MICROSECOND, 1)]


def _most(faults: list[Violation]) -> list[Violation]:
    more = len(faults) - MAX_FAULTS
    return faults if more <= 0 else [*faults[:MAX_FAULTS], Violation("payload", f"has {more} faults more")]

"""Everything that can be wrong with a task. Creating, changing and previewing one ask here."""

from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.errors import Violation
from services.pipeline import definition
from services.pipeline.cel import compile_filter
from services.pipeline.errors import ExpressionError
from services.tasks.models.schedule import ScheduleFault, parse_schedule
from services.tasks.models.task import Misfire, NewTask, ScheduleKind, Task
from services.tasks.operations.new_run import MAX_PAYLOAD_BYTES
from services.tasks.operations.tool import Use, tool_faults

_WITHOUT_TIMES = (ScheduleKind.MANUAL, ScheduleKind.EVENT, ScheduleKind.CONDITION)
_WITH_EVENT = (ScheduleKind.EVENT, ScheduleKind.CONDITION)
_PROBE = "condition.probe"
_NO_TEMPLATE = "is taken as it stands, and so must not contain ${: templates are for the input of steps"
_MAX_INPUT_BYTES = 64 * 1024


def faults_of(connection: Connection, new: NewTask, now: datetime) -> tuple[datetime | None, list[Violation]]:
    """The first fire time of a schedule that begins now, and every fault of the task."""
    kind = new.schedule_kind
    first, faults = first_fire_time(kind, new.schedule_expr, new.timezone, now)
    faults = [*faults, *misfire_faults(kind, new.misfire), *filter_faults(kind, new.event_filter), *key_faults(new)]
    faults += condition_faults(connection, kind, new.condition, new.payload)
    return first, [*faults, *payload_faults(connection, new.payload, kind)]


def first_fire_time(
    kind: ScheduleKind, expression: str, timezone: str, now: datetime
) -> tuple[datetime | None, list[Violation]]:
    """The first fire time of a schedule that begins now, None when it has no times, and every fault of it."""
    try:
        first = parse_schedule(kind, expression, timezone, anchor=now).first(now)
    except ScheduleFault as fault:
        return None, list(fault.violations)
    if first is None and kind not in _WITHOUT_TIMES:
        return None, [Violation("schedule_expr", f"{expression!r} never comes true")]
    return first, []


def misfire_faults(kind: ScheduleKind, misfire: Misfire) -> list[Violation]:
    """What is wrong with a rule for times that were noticed late."""
    if kind not in _WITHOUT_TIMES or misfire is Misfire.RUN_ONCE:
        return []
    fault = f"does nothing for schedule_kind {kind}, which has no times: leave it at {Misfire.RUN_ONCE}"
    return [Violation("misfire", fault)]


def filter_faults(kind: ScheduleKind, text: str) -> list[Violation]:
    """What is wrong with a filter of events."""
    if not text:
        return []
    if kind is not ScheduleKind.EVENT:
        return [Violation("event_filter", f"does nothing for schedule_kind {kind}: leave it empty")]
    try:
        compile_filter(text)
    except ExpressionError as fault:
        return [Violation("event_filter", str(fault))]
    return []


def key_faults(task: NewTask | Task) -> list[Violation]:
    """What is wrong with the keys that runs share."""
    keys = {"dedupe_key": task.dedupe_key, "concurrency_key": task.concurrency_key}
    # All events would have the one key that was meant to tell them apart, and be suppressed.
    faults = [Violation(name, _NO_TEMPLATE) for name, key in keys.items() if "${" in key]
    # A key without a window is what earlier clients send: it does nothing, and says so.
    if task.dedupe_window_seconds and not task.dedupe_key:
        fault = "does nothing without a dedupe_key: give one, or leave it at 0"
        faults.append(Violation("dedupe_window_seconds", fault))
    return faults


def condition_faults(
    connection: Connection, kind: ScheduleKind, condition: dict[str, Any] | None, payload: dict[str, Any]
) -> list[Violation]:
    """What is wrong with what a task asks, its tool included."""
    if kind is not ScheduleKind.CONDITION:
        return [Violation("condition", f"does nothing for schedule_kind {kind}: leave it out")] if condition else []
    if condition is None:
        return [Violation("condition", "is required for schedule_kind condition: the probe, and how often it is done")]
    probe = condition["probe"]
    if (size := len(orjson.dumps(probe["with"]))) > _MAX_INPUT_BYTES:
        return [Violation(f"{_PROBE}.with", f"is {size} bytes as JSON, at most {_MAX_INPUT_BYTES} are allowed")]
    faults = [
        Violation(problem.field, problem.description)
        for problem in definition.check_probe(probe, payload.get("params", {}), _PROBE)
    ]
    if any(fault.field in (_PROBE, f"{_PROBE}.uses") for fault in faults):
        return faults
    of_step = tool_faults(connection, {0: _use(probe)})
    return faults + [
        Violation(fault.field.replace("payload.pipeline[0]", _PROBE, 1), fault.description) for fault in of_step
    ]


def payload_faults(connection: Connection, payload: dict[str, Any], kind: ScheduleKind) -> list[Violation]:
    """Every fault of the payload of a task of that kind, its tools included."""
    size = len(orjson.dumps(payload))
    if size > MAX_PAYLOAD_BYTES:
        return [Violation("payload", f"is {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed")]
    problems = definition.check(payload, has_event=kind in _WITH_EVENT, has_topic=kind is ScheduleKind.EVENT)
    faults = [Violation(problem.field, problem.description) for problem in problems]
    return faults + tool_faults(connection, _tools_used(payload, {problem.field for problem in problems}))


def _tools_used(payload: dict[str, Any], faulty: Container[str]) -> dict[int, Use]:
    """The tools of those steps that name one, by position, so that a fault elsewhere does not hide theirs."""
    if "payload" in faulty or "payload.pipeline" in faulty:
        return {}
    paths = ((position, f"payload.pipeline[{position}]", step) for position, step in enumerate(payload["pipeline"]))
    return {
        position: _use(step) for position, path, step in paths if path not in faulty and f"{path}.uses" not in faulty
    }


def _use(step: dict[str, Any]) -> Use:
    given = step.get("with", {})
    return Use(step["uses"], given if isinstance(given, Mapping) else None)

"""A task's payload: `{"pipeline": [step...], "params": {...}}`, read and checked."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.pipeline import names, options
from services.pipeline.conditions import compile_condition
from services.pipeline.errors import PipelineError, Problem, ValidationFault
from services.pipeline.expressions import Expression
from services.pipeline.options import Approval, Foreach, OnError, Report, Retry
from services.pipeline.references import PROBE_ROOTS, Scope
from services.pipeline.templates import compile_template, member

MAX_STEPS = 1000
MAX_TIMEOUT_SECONDS = 3600
MAX_DEPTH = 30
"""Levels of objects and lists in a payload. Protobuf reads no message deeper than 100, and an object takes three."""

_USES = re.compile(r"[a-z][a-z0-9_-]{0,63}\.[A-Za-z0-9_.-]{1,128}")
_SCALARS = (str, int, float, bool)
_PAYLOAD_KEYS = ("pipeline", "params")
_STEP_KEYS = ("id", "uses", "with", "save_as", "if", "timeout_seconds", "retry", "on_error", "foreach", "approval")


@dataclass(frozen=True)
class Step:
    """One tool call."""

    id: str
    """Unique in its pipeline; `step_<n>`, counted from 1, when the payload gives none."""
    uses: str
    """The tool's address, `server.tool`."""
    with_: Mapping[str, Any] = field(default_factory=dict)
    """The tool's input, with templates."""
    save_as: str | None = None
    """The name under which later steps find the output as `steps.<name>`."""
    condition: str | None = None
    """The step's `if`: skipped unless this is true."""
    timeout_seconds: float | None = None
    """How long the call may take; when None, the tool server's limit."""
    retry: Retry | None = None
    """How often it is tried again; when None, as often as its task says."""
    on_error: OnError = OnError.FAIL
    foreach: Foreach | None = None
    """What it is done for, item by item."""
    approval: Approval | None = None
    """Who must say yes before it is begun."""


@dataclass(frozen=True)
class Pipeline:
    """The steps, in order, and the parameters they see as `params`."""

    steps: tuple[Step, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


def parse(payload: Mapping[str, Any]) -> Pipeline:
    """Reads a payload. Raises ValidationFault with every fault that `check` finds."""
    problems = check(payload)
    if problems:
        raise ValidationFault(problems)
    steps = tuple(_step(position, step) for position, step in enumerate(payload["pipeline"]))
    return Pipeline(steps, payload.get("params", {}))


def check(payload: Mapping[str, Any], *, has_event: bool = True, has_topic: bool = True) -> list[Problem]:
    """Every fault of a payload, in the order of its text; an empty list when there is none.

    Fields are named as in `payload.pipeline[1].with.time`. Whether the tools exist is not looked at. Without
    `has_event`, whatever reads the event is a fault; without `has_topic`, whatever reads its id or its topic.
    """
    if is_too_deep(payload):
        return [Problem("payload", f"is nested deeper than {MAX_DEPTH} levels")]
    problems: list[Problem] = []

    def report(field: str, description: str) -> None:
        problems.append(Problem(field, description))

    _check_keys(payload, _PAYLOAD_KEYS, "payload", report)
    params = payload.get("params", {})
    if not isinstance(params, Mapping):
        report("payload.params", "must be an object")
        params = {}
    saved_later = set(_saved_names(payload.get("pipeline")))
    scope = Scope(params, saved_later=saved_later, has_event=has_event, has_topic=has_topic)
    _check_steps(payload.get("pipeline"), scope, report)
    return problems


def check_probe(probe: Mapping[str, Any], params: Any, field: str) -> list[Problem]:
    """Every fault of a condition's probe, `{"uses", "with", "timeout_seconds"}`, which stands at `field`."""
    if is_too_deep(probe):
        return [Problem(field, f"is nested deeper than {MAX_DEPTH} levels")]
    problems: list[Problem] = []

    def report(at: str, description: str) -> None:
        problems.append(Problem(at, description))

    scope = Scope(params if isinstance(params, Mapping) else {}, roots=PROBE_ROOTS)
    _StepChecks(scope, report).check_call(probe, field)
    return problems


def is_address(text: str) -> bool:
    """Whether a step can name a tool so: `server.tool`."""
    return bool(_USES.fullmatch(text))


def is_too_deep(value: Any) -> bool:
    """Whether a payload, or anything else that is kept like one, has more than MAX_DEPTH levels."""
    return _deeper_than(value, MAX_DEPTH)


def _step(position: int, step: Mapping[str, Any]) -> Step:
    return Step(
        id=step.get("id", default_id(position)),
        uses=step["uses"],
        with_=step.get("with", {}),
        save_as=step.get("save_as"),
        condition=step.get("if"),
        timeout_seconds=step.get("timeout_seconds"),
        retry=options.retry(step),
        on_error=OnError(step.get("on_error", OnError.FAIL)),
        foreach=options.foreach(step),
        approval=options.approval(step),
    )


def default_id(position: int) -> str:
    """The id of a step that has none of its own, by its position from 0."""
    return f"step_{position + 1}"


def _check_steps(steps: Any, scope: Scope, report: Report) -> None:
    if not isinstance(steps, list | tuple):
        report("payload.pipeline", "must be a list of steps; it may be empty")
        return
    if len(steps) > MAX_STEPS:
        report("payload.pipeline", f"has {len(steps)} steps, at most {MAX_STEPS}")
        return
    checks = _StepChecks(scope, report)
    for position, step in enumerate(steps):
        path = f"payload.pipeline[{position}]"
        if isinstance(step, Mapping):
            checks.check(step, position, path)
        else:
            report(path, "must be an object with `uses`")


def _saved_names(steps: Any) -> Iterator[str]:
    for step in steps[:MAX_STEPS] if isinstance(steps, list | tuple) else ():
        if isinstance(step, Mapping) and isinstance(step.get("save_as"), str):
            yield step["save_as"]


class _StepChecks:
    """Checks steps in their order, remembering the names that are taken."""

    def __init__(self, scope: Scope, report: Report) -> None:
        self._scope = scope
        self._report = report
        self._ids: dict[str, int] = {}

    def check(self, step: Mapping[str, Any], position: int, path: str) -> None:
        _check_keys(step, _STEP_KEYS, path, self._report)
        options.check(step, path, self._report)
        self._check_id(step, position, path)
        self._check_uses(step, path)
        self._check_timeout(step, path)
        self._check_condition(step, path)
        self._check_items(step, path)
        self._scope.item = options.item_name(step)
        self._check_input(step, path)
        self._scope.item = None
        self._check_save_as(step, path)

    def check_call(self, call: Mapping[str, Any], path: str) -> None:
        """Checks what is the same for the probe of a condition."""
        self._check_uses(call, path)
        self._check_timeout(call, path)
        self._check_input(call, path)

    def _check_id(self, step: Mapping[str, Any], position: int, path: str) -> None:
        name = step.get("id", default_id(position))
        if not names.is_name(name):
            self._report(f"{path}.id", f"must be a name of {names.RULE}")
        elif name in self._ids:
            self._report(f"{path}.id", f"{name!r} is already the id of pipeline[{self._ids[name]}]")
        else:
            self._ids[name] = position

    def _check_uses(self, step: Mapping[str, Any], path: str) -> None:
        if "uses" not in step:
            self._report(f"{path}.uses", "is required: the tool's address, such as time.get_current_time")
        elif not isinstance(step["uses"], str) or not is_address(step["uses"]):
            self._report(f"{path}.uses", "must be a tool's address: server.tool, such as time.get_current_time")

    def _check_timeout(self, step: Mapping[str, Any], path: str) -> None:
        seconds = step.get("timeout_seconds", 1)
        valid = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
        if not valid or not 0 < seconds <= MAX_TIMEOUT_SECONDS:
            self._report(f"{path}.timeout_seconds", f"must be a number above 0 and at most {MAX_TIMEOUT_SECONDS}")

    def _check_condition(self, step: Mapping[str, Any], path: str) -> None:
        if "if" not in step:
            return
        if not isinstance(step["if"], str):
            self._report(f"{path}.if", "must be a JMESPath expression as a string")
            return
        self._check_text(f"{path}.if", lambda: [compile_condition(step["if"])])

    def _check_items(self, step: Mapping[str, Any], path: str) -> None:
        if isinstance(step.get("foreach"), Mapping):
            self._check_templates(step["foreach"].get("items"), f"{path}.foreach.items")

    def _check_input(self, step: Mapping[str, Any], path: str) -> None:
        given = step.get("with", {})
        if isinstance(given, Mapping):
            self._check_templates(given, f"{path}.with")
        else:
            self._report(f"{path}.with", "must be an object: the tool's input")

    def _check_templates(self, value: Any, path: str) -> None:
        for field_path, text in _strings(value, path):
            self._check_text(field_path, lambda text=text: list(compile_template(text).expressions))  # type: ignore[misc]

    def _check_text(self, path: str, read: Callable[[], list[Expression]]) -> None:
        try:
            expressions = read()
        except PipelineError as error:
            self._report(path, str(error))
            return
        for expression in expressions:
            for fault in self._scope.faults(expression):
                self._report(path, fault)

    def _check_save_as(self, step: Mapping[str, Any], path: str) -> None:
        if "save_as" not in step:
            return
        name = step["save_as"]
        if not names.is_name(name):
            self._report(f"{path}.save_as", f"must be a name of {names.RULE}")
        elif name in self._scope.saved:
            self._report(f"{path}.save_as", f"{name!r} is already saved by an earlier step")
        else:
            self._scope.saved.add(name)


def _check_keys(given: Mapping[str, Any], known: tuple[str, ...], path: str, report: Report) -> None:
    for key in given:
        if key not in known:
            report(member(path, str(key)), f"is unknown; known are {', '.join(known)}")


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string in `value` that may hold a template, with its path."""
    if isinstance(value, str):
        if "$" in value:
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, member(path, str(key)))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _strings(item, f"{path}[{position}]")


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether objects and lists nest deeper; stops at the first place that does, so even a cycle ends."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, _SCALARS):
            continue
        if isinstance(item, Mapping | list | tuple):
            if depth > levels:
                return True
            items = item.values() if isinstance(item, Mapping) else item
            pending.extend((child, depth + 1) for child in items)
    return False

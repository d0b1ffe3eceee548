"""What a pipeline would do, as far as that can be told without a single tool call.

Whatever the payload, a sketch takes about a second at most, and adds MAX_RENDERED_BYTES to it at most.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.pipeline import canonical, conditions
from services.pipeline.budget import Budget
from services.pipeline.definition import default_id
from services.pipeline.errors import ConditionError, PipelineError, Problem, TemplateError, clip
from services.pipeline.options import item_name
from services.pipeline.references import paths_read
from services.pipeline.templates import compile_template, member, render

MAX_UNRESOLVED = 200
"""Templates and conditions of one pipeline whose faults are told; those beyond are left as they are written."""

MAX_RENDERED_BYTES = 1024 * 1024
"""Bytes of JSON that all templates of one pipeline may become."""

_LONGEST_MESSAGE = 300


@dataclass
class StepSketch:
    """One step with what is known now."""

    id: str
    uses: str
    with_: dict[str, Any] = field(default_factory=dict)
    """The tool's input; a template that cannot be rendered stays as it is written."""
    condition: bool | None = None
    """Whether the step's `if` is true; None when it has none, or it cannot be told."""
    items: int | None = None
    """How many items it is done for, `with` being for the first; None when it has none, or it cannot be told."""
    unresolved: list[Problem] = field(default_factory=list)


def sketch(payload: Mapping[str, Any], context: Mapping[str, Any]) -> list[StepSketch]:
    """The steps of a payload, faulty ones as far as they can be read, rendered with `context`.

    `context` is what expressions read; where its `steps` does not name a step, nothing is guessed of its output.
    """
    return list(_Sketcher(context).steps(payload))


class _Sketcher:
    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context
        self._budget = Budget()
        self._bytes = 0
        self._told = 0

    def steps(self, payload: Mapping[str, Any]) -> Iterator[StepSketch]:
        for position, step in enumerate(payload["pipeline"]):
            if isinstance(step, Mapping):
                yield self._step(position, step)

    def _step(self, position: int, step: Mapping[str, Any]) -> StepSketch:
        path = f"payload.pipeline[{position}]"
        sketched = StepSketch(_text(step.get("id", default_id(position))), _text(step.get("uses", "")))
        if isinstance(step.get("if"), str):
            sketched.condition = self._condition(step["if"], f"{path}.if", sketched)
        item = self._first_item(step, path, sketched)
        if isinstance(step.get("with"), Mapping):
            whole, self._context = self._context, {**self._context, **item}
            sketched.with_ = self._render(step["with"], f"{path}.with", sketched)
            self._context = whole
        return sketched

    def _first_item(self, step: Mapping[str, Any], path: str, sketched: StepSketch) -> Mapping[str, Any]:
        """What templates can read of the first item, by its name; counts the items."""
        foreach = step.get("foreach")
        if not isinstance(foreach, Mapping):
            return {}
        items = self._render(foreach.get("items"), f"{path}.foreach.items", sketched)
        if not isinstance(items, list | tuple):
            return {}
        sketched.items = len(items)
        name = item_name(step)
        return {name: items[0]} if name and items else {}

    def _condition(self, text: str, path: str, sketched: StepSketch) -> bool | None:
        try:
            self._require_samples(text)
            return conditions.holds(text, self._context, self._budget)
        except PipelineError as error:
            self._tell(sketched, path, error)
            return None

    def _require_samples(self, text: str) -> None:
        """What is missing makes a condition false; but of what is not in the sample nothing is known."""
        known = self._context["steps"]
        for path in paths_read(conditions.compile_condition(text)):
            match path:
                case ("steps", name) if name not in known:
                    raise ConditionError(f"if: steps.{clip(name)} is not in the sample")
                case ("event",) if "event" not in self._context:
                    raise ConditionError("if: event is not in the sample")

    def _render(self, value: Any, path: str, sketched: StepSketch) -> Any:
        if isinstance(value, str):
            return self._render_text(value, path, sketched)
        if isinstance(value, Mapping):
            return {key: self._render(item, member(path, str(key)), sketched) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._render(item, f"{path}[{index}]", sketched) for index, item in enumerate(value)]
        return value

    def _render_text(self, text: str, path: str, sketched: StepSketch) -> Any:
        if "$" not in text or self._told >= MAX_UNRESOLVED:
            return text
        try:
            self._require_event(text)
            rendered = render(text, self._context, path, self._budget)
            self._require_space(rendered)
        except TemplateError as error:
            self._tell(sketched, path, error)
            return text
        return rendered

    def _require_event(self, text: str) -> None:
        if "event" not in self._context and any(
            ("event",) in paths_read(expression) for expression in compile_template(text).expressions
        ):
            raise TemplateError("event is not in the sample")

    def _require_space(self, rendered: Any) -> None:
        size = len(canonical.encode(rendered))
        if self._bytes + size > MAX_RENDERED_BYTES:
            raise TemplateError(f"all that is rendered would have more than {MAX_RENDERED_BYTES} bytes")
        self._bytes += size

    def _tell(self, sketched: StepSketch, path: str, error: PipelineError) -> None:
        self._told += 1
        if self._told <= MAX_UNRESOLVED:
            # What the message begins with says the same as the path, and less.
            message = str(error).removeprefix(f"{path}: ").removeprefix("if: ")
            sketched.unresolved.append(Problem(path, clip(message, _LONGEST_MESSAGE)))


def _text(value: Any) -> str:
    return clip(value) if isinstance(value, str) else ""

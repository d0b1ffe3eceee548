"""A step's `with` against the schema of its tool, before anything runs.

What a template will become nobody knows yet, so only what is wrong whatever it becomes is a fault: nothing that could
be valid is refused.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from jsonschema import exceptions
from jsonschema.exceptions import ValidationError

from services.pipeline.errors import Problem, TemplateError, clip
from services.pipeline.schemas import Effort, Schema, SchemaNotUsable, path
from services.pipeline.templates import compile_template, member

MAX_PROBLEMS = 20
"""Problems of one step's input that are told."""

_LOOKED_AT = 1000
_NAMES_SHOWN = 12
_LONGEST_MESSAGE = 300
# Whether these apply depends on values, which a template may hide.
_CONDITIONAL = {"if", "then", "else"}


class _Unknown:
    """What a string that is one expression will become: anything."""


class _SomeText(str):
    """What text with expressions in it, or with secrets, will become: text."""


def input_problems(
    tool: str, schema: Schema, given: Mapping[str, Any], field: str, effort: Effort | None = None
) -> list[Problem]:
    """What is certainly wrong with the input that a step gives to `tool`; `field` is where the input stands.

    Nothing, when it cannot be told, or is more work than `effort` allows.
    """
    value = _foreseen(given)
    is_open = _holds_unknown(value)
    problems: dict[Problem, None] = {}
    try:
        for fault in islice(schema.faults(value, effort), _LOOKED_AT):
            if is_open and not _is_certain(fault):
                continue
            problems |= dict.fromkeys(_problems(tool, fault, field))
    except SchemaNotUsable:
        return []
    return list(problems)[:MAX_PROBLEMS]


def _foreseen(value: Any) -> Any:
    """The value with what is known of its strings."""
    if isinstance(value, str):
        return _foreseen_text(value) if "$" in value else value
    if isinstance(value, Mapping):
        return {key: _foreseen(item) for key, item in value.items()}
    return [_foreseen(item) for item in value] if isinstance(value, list | tuple) else value


def _foreseen_text(text: str) -> Any:
    try:
        template = compile_template(text)
    except TemplateError:
        return _Unknown()  # which is a fault of its own
    literal = [part for part in template.parts if isinstance(part, str)]
    if len(literal) == len(template.parts):
        return "".join(literal)
    alone = len(template.parts) == 1 and not template.refers_to_secrets
    return _Unknown() if alone else _SomeText()


def _holds_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_unknown, value.values()))
    if isinstance(value, list):
        return any(map(_holds_unknown, value))
    return isinstance(value, _Unknown | _SomeText)


def _is_certain(fault: ValidationError) -> bool:
    """Whether a fault stays one whatever the templates become."""
    if not _CONDITIONAL.isdisjoint(fault.absolute_schema_path):
        return False
    if not _holds_unknown(fault.instance):
        return True
    match fault.validator:
        case "required" | "additionalProperties":
            return isinstance(fault.instance, dict)  # the names of its members are no templates
        case "type":
            return isinstance(fault.instance, _SomeText)
    return False


def _problems(tool: str, fault: ValidationError, field: str) -> Iterator[Problem]:
    where = path(fault, field)
    given: Any = fault.instance
    if fault.validator == "required" and isinstance(fault.validator_value, list):
        for name in fault.validator_value:
            if name not in given:
                yield Problem(member(where, str(name)), f"is required by {tool}")
    elif fault.validator == "additionalProperties" and fault.validator_value is False:
        known = fault.schema.get("properties", {}) if isinstance(fault.schema, Mapping) else {}
        for name in given:
            if name not in known:
                yield Problem(member(where, name), f"is not known to {tool}; known are {_listed(known)}")
    elif isinstance(given, _SomeText):
        yield Problem(where, f"is text, and {tool} takes {_kinds(fault.validator_value)}")
    else:
        innermost = exceptions.best_match(iter([fault])) or fault
        yield Problem(path(innermost, field), clip(innermost.message, _LONGEST_MESSAGE))


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(clip(name, 40) for name in sorted(names)[:_NAMES_SHOWN])
    return f"{shown or 'none'}{', ...' if len(names) > _NAMES_SHOWN else ''}"


def _kinds(types: Any) -> str:
    return " or ".join(map(str, types)) if isinstance(types, list) else str(types)

"""The JSON Schemas that tools come with, and what is wrong with a value by one of them.

A schema is written by whoever runs the tool's server, and must not be able to keep Baton busy: a check ends after a
bounded number of steps, refers to nothing outside, and leaves regular expressions to the server, for one can be
written that takes for ever.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import orjson
from jsonschema import exceptions
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, extend, validator_for
from referencing import Registry

from services.pipeline.templates import member

MAX_STEPS = 100_000
"""Keywords looked at, and values compared with: at worst about half a second of work."""

MAX_PARTS = 2000
"""Objects and lists in a schema; to read one takes longer than to use it, about a third of a second for so many."""

_CHARACTERS_PER_STEP = 64
_PATTERN = "pattern"
# Where one keyword is left out, these may refuse what is valid; `pattern` alone only ever refuses too little.
_TURN_ROUND = {"not", "if", "oneOf", "maxContains"}
_NEED_PATTERNS = "patternProperties"
_DATA = {"const", "enum", "default", "examples"}
_Rule = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]
_current = threading.local()


class Effort:
    """How much work checks may be. Whoever makes several checks may give them one."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Raises SchemaNotUsable once nothing is left."""
        self._left -= steps
        if self._left < 0:
            raise SchemaNotUsable("it is too much work")


class SchemaNotUsable(Exception):
    """The schema is faulty, or cannot be checked with; the value may be valid or not."""


class Schema:
    """A schema that values can be checked with any number of times."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises SchemaNotUsable."""
        try:
            words, parts = _words(schema)
            if parts > MAX_PARTS:
                raise SchemaNotUsable(f"it has {parts} parts, at most {MAX_PARTS}")
            if _NEED_PATTERNS in words or (_PATTERN in words and words & _TURN_ROUND):
                raise SchemaNotUsable("it cannot be told without regular expressions")
            dialect = validator_for(schema, default=Draft202012Validator)
            dialect.check_schema(dict(schema))
            # An empty registry: a schema must not make anybody fetch what it refers to.
            self._validator = _bounded(dialect)(_of_one_dialect(schema), registry=Registry())
        except SchemaNotUsable:
            raise
        except Exception as error:  # it is faulty, or too deep to be checked
            raise SchemaNotUsable(type(error).__name__) from None

    def faults(self, value: Any, effort: Effort | None = None) -> Iterator[ValidationError]:
        """What is wrong with `value`, in messages that may be as long as it. Raises SchemaNotUsable when it cannot be
        told."""
        _current.effort = effort or Effort()
        try:
            yield from self._validator.iter_errors(value)
        except SchemaNotUsable:
            raise
        except Exception as error:  # it refers to what is not there, to itself without end, or is too much work
            raise SchemaNotUsable(type(error).__name__) from None

    def worst_fault(self, value: Any) -> ValidationError | None:
        """What most probably is to be mended. Raises SchemaNotUsable."""
        fault: ValidationError | None = exceptions.best_match(self.faults(value))
        return fault


def path(fault: ValidationError, field: str) -> str:
    """Where a fault is, below `field`: `with.times[0]`."""
    for part in fault.absolute_path:
        field = member(field, part) if isinstance(part, str) else f"{field}[{part}]"
    return field


@cache
def _bounded(dialect: Any) -> Any:
    """The dialect with every step counted and no regular expressions."""
    rules = dict(dialect.VALIDATORS) | {_PATTERN: _no_faults}
    if "uniqueItems" in rules:
        rules["uniqueItems"] = _unique_items
    counted = {keyword: _counted(rule) for keyword, rule in rules.items()}
    return extend(dialect, counted)  # type: ignore[no-untyped-call]


def _counted(rule: _Rule) -> _Rule:
    def check(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        effort: Effort = _current.effort
        effort.spend(1 + (len(value) if isinstance(value, list) else 0))
        for fault in rule(validator, value, instance, schema) or ():
            if not isinstance(fault.validator, str):  # else it is that of a part, where it was counted
                # It tells the whole value, however large.
                effort.spend(len(fault.message) // _CHARACTERS_PER_STEP)
            yield fault

    return check


def _no_faults(validator: Validator, value: Any, instance: Any, schema: Any) -> None:
    return None


def _unique_items(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The usual way compares every item with every other."""
    if value and isinstance(instance, list):
        spellings = {orjson.dumps(item, option=orjson.OPT_SORT_KEYS, default=id) for item in instance}
        if len(spellings) < len(instance):
            yield ValidationError("has items that are the same")


def _words(schema: Any) -> tuple[set[str], int]:
    """Every key in a schema, wherever it is, and the number of its parts.

    The name of a property may be among the keys, which only makes careful.
    """
    words: set[str] = set()
    parts = 0
    pending = [schema]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            words.update(item)
        if isinstance(item, Mapping | list):
            parts += 1
            pending.extend(item.values() if isinstance(item, Mapping) else item)
    return words, parts


def _of_one_dialect(schema: Any) -> Any:
    """The schema without `$schema`, for a part of it that names a dialect would be checked by that one's own rules."""
    if isinstance(schema, Mapping):
        return {
            key: item if key in _DATA else _of_one_dialect(item)
            for key, item in schema.items()
            if not (key == "$schema" and isinstance(item, str))
        }
    return [_of_one_dialect(item) for item in schema] if isinstance(schema, list) else schema

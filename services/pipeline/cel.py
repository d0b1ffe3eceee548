"""Filters: one CEL expression over an event that is true or false, with bounded work."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import orjson
from cel_expr_python import cel

from services.pipeline.cel_shape import MAX_ELEMENTS, Shape, read_shape
from services.pipeline.errors import ExpressionError, clip

MAX_LENGTH = 1000
"""Characters per expression."""

MAX_WORK = 250_000_000
"""What one evaluation may cost, in looks at a byte: a few tenths of a second at worst."""

_CACHED = 2048
_LONGEST_MESSAGE = 300
# The work of a regular expression has no bound that a short one would keep.
_CONFIGURATION = "stdlib: {exclude_functions: [{name: matches}]}"
_FAULT = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_CODE = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")


@dataclass(frozen=True)
class Subject:
    """An event as filters are asked about it: prepared once, however many there are."""

    topic: str
    payload: Mapping[str, Any]

    @cached_property
    def size(self) -> int:
        """Bytes of JSON."""
        return len(orjson.dumps(self.payload))

    @cached_property
    def elements(self) -> int:
        """What there is in all its lists and objects together."""
        return _count(self.payload)

    @cached_property
    def activation(self) -> Any:
        return _environment().Activation({"event": _with_doubles(self.payload), "topic": self.topic})


@dataclass(frozen=True)
class Filter:
    """An expression, ready to be evaluated."""

    text: str
    program: Any
    shape: Shape

    def work(self, subject: Subject) -> int:
        """What an evaluation costs at worst, in looks at a byte."""
        return self.shape.work(subject.size, subject.elements)

    def holds(self, subject: Subject) -> bool:
        """Whether the expression is true. Raises ExpressionError when it cannot be told, or takes too long."""
        if self.work(subject) > MAX_WORK:
            raise ExpressionError(f"is too much work for an event of {subject.size} bytes")
        try:
            result = self.program.eval(subject.activation)
        except Exception as error:
            # Whatever a foreign evaluator stumbles over is a fault of this filter, and of no other.
            raise ExpressionError(_evaluation_fault(str(error))) from None
        # No other kind is asked for its value: asked for a null, the library gives away a None that is not its own.
        if result.type() == cel.Type.BOOL:
            return bool(result.value())
        if result.type() == cel.Type.ERROR:
            raise ExpressionError(_evaluation_fault(str(result.value())))
        raise ExpressionError(f"is a {result.type().name().lower()} here, and must be true or false")


@lru_cache(_CACHED)
def compile_filter(text: str) -> Filter:
    """Reads a filter over `event`, the payload, and `topic`. Raises ExpressionError that says what is wrong."""
    if not text.strip():
        raise ExpressionError("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"has {len(text)} characters, at most {MAX_LENGTH}")
    try:
        program = _environment().compile(text)
    except Exception as error:
        raise ExpressionError(f'"{clip(text)}" is no CEL: {_syntax_fault(str(error))}') from None
    if program.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ExpressionError(f"is a {program.return_type().name().lower()}, and must be true or false")
    return Filter(text, program, read_shape(program.serialize()))


@cache
def _environment() -> Any:
    variables = {"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "topic": cel.Type.STRING}
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIGURATION), variables=variables)


def _count(value: Any) -> int:
    found, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping | list):
            found += len(item)
            pending.extend(item.values() if isinstance(item, Mapping) else item)
    return found


def _with_doubles(value: Any) -> Any:
    """JSON with all its numbers as doubles, which CEL takes them for: no type depends on whether a value is whole."""
    if isinstance(value, Mapping):
        return {key: _with_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_doubles(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _syntax_fault(message: str) -> str:
    found = _FAULT.search(message)
    if found is None:
        return _clipped(message)
    what = _clipped(found[3].partition(" expecting {")[0].removesuffix(" (in container '')"))
    return f"{what} at column {found[2]}" if found[1].isdigit() else what


def _evaluation_fault(message: str) -> str:
    if "Iteration budget exceeded" in message:
        return f"goes through more than {MAX_ELEMENTS} elements"
    return f"cannot be evaluated: {_clipped(message)}"


def _clipped(message: str) -> str:
    plain = _CODE.sub("", message.strip()).partition("\n")[0].removeprefix("ERROR: <input>:-1:-1: ")
    return clip(plain[:1].lower() + plain[1:], _LONGEST_MESSAGE)

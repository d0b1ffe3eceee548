"""One CEL expression, over an event or over what a probe told, that is true or false, with bounded work."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, ClassVar, Protocol

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


class Facts(Protocol):
    """What an expression is asked about: prepared once, however many expressions there are."""

    what: ClassVar[str]
    """What it is, for people."""

    @property
    def size(self) -> int:
        """Bytes of JSON."""

    @property
    def elements(self) -> int:
        """What there is in all its lists and objects together."""

    @property
    def activation(self) -> Any:
        """The values of the variables."""


@dataclass(frozen=True)
class Subject:
    """An event, as filters are asked about it."""

    what: ClassVar[str] = "an event"
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
        return _event_environment().Activation({"event": _with_doubles(self.payload), "topic": self.topic})


@dataclass(frozen=True)
class Finding:
    """What a probe told, as the condition is asked about it."""

    what: ClassVar[str] = "a result, with its parameters,"
    result: Any
    params: Mapping[str, Any]

    @cached_property
    def size(self) -> int:
        return len(orjson.dumps([self.result, self.params]))

    @cached_property
    def elements(self) -> int:
        return _count([self.result, self.params])

    @cached_property
    def activation(self) -> Any:
        values = {"result": _with_doubles(self.result), "params": _with_doubles(self.params)}
        return _finding_environment().Activation(values)


@dataclass(frozen=True)
class Filter:
    """An expression, ready to be evaluated."""

    text: str
    program: Any
    shape: Shape

    def work(self, subject: Facts) -> int:
        """What an evaluation costs at worst, in looks at a byte."""
        return self.shape.work(subject.size, subject.elements)

    def holds(self, subject: Facts) -> bool:
        """Whether the expression is true. Raises ExpressionError when it cannot be told, or takes too long."""
        if self.work(subject) > MAX_WORK:
            raise ExpressionError(f"is too much work for {subject.what} of {subject.size} bytes")
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
        raise ExpressionError(f"is {_kind(result.type())} here, and must be true or false")


@lru_cache(_CACHED)
def compile_filter(text: str) -> Filter:
    """Reads a filter over `event`, the payload, and `topic`. Raises ExpressionError that says what is wrong."""
    return _compile(text, _event_environment(), ("event",))


@lru_cache(_CACHED)
def compile_question(text: str) -> Filter:
    """Reads a condition over `result`, what a probe told, and `params`. Raises ExpressionError as for a filter."""
    return _compile(text, _finding_environment(), ("result", "params"))


def _compile(text: str, environment: Any, inputs: tuple[str, ...]) -> Filter:
    if not text.strip():
        raise ExpressionError("the expression is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"has {len(text)} characters, at most {MAX_LENGTH}")
    try:
        program = environment.compile(text)
    except Exception as error:
        raise ExpressionError(f'"{clip(text)}" is no CEL: {_syntax_fault(str(error))}') from None
    if program.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ExpressionError(f"is {_kind(program.return_type())}, and must be true or false")
    return Filter(text, program, read_shape(program.serialize(), inputs))


@cache
def _event_environment() -> Any:
    return _environment({"event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "topic": cel.Type.STRING})


@cache
def _finding_environment() -> Any:
    return _environment({"result": cel.Type.DYN, "params": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})


def _environment(variables: dict[str, Any]) -> Any:
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


def _kind(found: Any) -> str:
    name: str = found.name().lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _syntax_fault(message: str) -> str:
    found = _FAULT.search(message)
    if found is None:
        return _clipped(message)
    what = _clipped(found[3].partition(" expecting {")[0].removesuffix(" (in container '')"))
    return f"{what} at column {found[2]}" if found[1].isdigit() else what


def _evaluation_fault(message: str) -> str:
    if "Iteration budget exceeded" in message:
        return f"goes through more than {MAX_ELEMENTS} elements"
    if "SELECT to non-message type" in message:
        return "cannot be evaluated: it asks for a field of what is no object"
    return f"cannot be evaluated: {_clipped(message)}"


def _clipped(message: str) -> str:
    plain = _CODE.sub("", message.strip()).partition("\n")[0].removeprefix("ERROR: <input>:-1:-1: ")
    return clip(plain[:1].lower() + plain[1:], _LONGEST_MESSAGE)

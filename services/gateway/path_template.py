"""The path templates of HTTP rules, as google/api/http.proto describes them.

    Template = "/" Segments [":" verb]        Segments = Segment {"/" Segment}
    Segment  = literal | "*" | "**" | "{" field.path ["=" Segments] "}"

`*` is one segment of a path and `**`, only at the end, any number of them; `{field}` is short for `{field=*}`.
A verb behind a literal is a part of that literal.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from services.chassis.config import ConfigurationError

ONE, REST = "*", "**"
_SLASH_OUTSIDE_VARIABLES = re.compile(r"/(?![^{]*\})")
_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)(?:=([^{}]+))?\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~:@!$'(),;=+-]*")
_VERB = re.compile(r"(.*[*}]):([A-Za-z_][A-Za-z0-9_-]*)")


@dataclass(frozen=True)
class Variable:
    """The segments of a path from `start` up to `stop` that fill one field."""

    name: str
    """The dotted name of the field."""
    start: int
    stop: int
    segments: tuple[str, ...]

    @property
    def is_one_segment(self) -> bool:
        """Whether its value is what is between two slashes, any slash in it being escaped."""
        return len(self.segments) == 1 and self.segments != (REST,)

    @property
    def is_whole(self) -> bool:
        """Whether its one wildcard is all of its value."""
        return self.segments in ((ONE,), (REST,))


@dataclass(frozen=True)
class PathTemplate:
    """A template that was read."""

    segments: tuple[str, ...]
    """Each a literal, `*` or, as the last, `**`."""
    variables: tuple[Variable, ...]
    verb: str
    """What follows the whole template behind a colon; the last segment has it, too, when it is a literal."""

    def expand(self, values: tuple[str, ...]) -> str:
        """The path in which the variables, from left to right, have these values."""
        filled = list(self.segments)
        for variable, value in reversed(list(zip(self.variables, values, strict=True))):
            filled[variable.start : variable.stop] = [quote(value, safe="" if variable.is_one_segment else "/")]
        return self.joined(filled)

    def joined(self, segments: Iterable[str]) -> str:
        """The path of these segments in place of its own, and the verb behind them."""
        verb = f":{self.verb}" if self.verb and self.segments[-1] in (ONE, REST) else ""
        return f"/{'/'.join(segments)}{verb}"


def parse_template(text: str) -> PathTemplate:
    """Raises ConfigurationError for a template that cannot be read."""
    rest, verb = _without_verb(text)
    segments: list[str] = []
    variables: list[Variable] = []
    for part in _SLASH_OUTSIDE_VARIABLES.split(rest.removeprefix("/")):
        variable = _VARIABLE.fullmatch(part)
        inner = (variable[2] or ONE).split("/") if variable else [part]
        if variable:
            variables.append(Variable(variable[1], len(segments), len(segments) + len(inner), tuple(inner)))
        segments += inner
    _check(text, segments, variables)
    if verb and segments[-1] not in (ONE, REST):
        segments[-1] += f":{verb}"
    return PathTemplate(tuple(segments), tuple(variables), verb)


def parameter_names(text: str) -> tuple[str, ...]:
    """The dotted names of a template's fields, from left to right."""
    return tuple(variable.name for variable in parse_template(text).variables)


def _without_verb(text: str) -> tuple[str, str]:
    match = _VERB.fullmatch(text)
    return (match[1], match[2]) if match else (text, "")


def _check(text: str, segments: list[str], variables: list[Variable]) -> None:
    names = [variable.name for variable in variables]
    empty = any("" in variable.segments for variable in variables)
    unread = [part for part in segments if part not in (ONE, REST) and not _LITERAL.fullmatch(part)]
    if not text.startswith("/"):
        why = "it begins with no slash"
    elif unread:
        why = f"{unread[0]!r} is not understood"
    elif empty:
        why = "a field is filled by an empty segment"
    elif REST in segments[:-1]:
        why = f"{REST} is not its last segment"
    elif len(set(names)) < len(names):
        why = "it has a field twice"
    else:
        return
    raise ConfigurationError(f"the path template {text!r} cannot be served: {why}")

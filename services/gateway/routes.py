"""Which endpoint a path leads to.

A tree of path segments, built once from the templates of HTTP rules. Starlette tries its routes one after the
other, by regular expression and in the order of declaration; here a request costs one dictionary look-up per
segment however many routes there are, and a literal segment wins over a parameter whatever the order.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, NotFound
from services.gateway.problems import MethodNotAllowed

Values = Mapping[str, str]
"""The values in a path, by the dotted name of the field that each fills."""
Endpoint = Callable[[Request, Values], Awaitable[Response]]

_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)\}(?::([A-Za-z_][A-Za-z0-9_-]*))?")
_LITERAL = re.compile(r"[A-Za-z0-9._~:@!$'(),;=+-]*")


@dataclass(frozen=True)
class Route:
    """One HTTP method at one template."""

    template: str
    parameters: tuple[str, ...]
    endpoint: Endpoint


@dataclass
class _Node:
    routes: dict[str, Route] = field(default_factory=dict)
    """By HTTP method."""
    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameters: dict[str, "_Node"] = field(default_factory=dict)
    """The node after a parameter, by the verb (`:cancel`) that ends its segment, empty for none."""


class Router:
    """Routes by template. In a template a segment is a literal, `{field.path}`, or that with a `:verb` behind."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, method: str, template: str, endpoint: Endpoint) -> None:
        """Raises ConfigurationError for a template that cannot be read, or that leads somewhere already."""
        node = self._root
        for segment in _split(template):
            parameter = _parameter(template, segment)
            if parameter is None:
                node = node.literals.setdefault(segment, _Node())
            else:
                node = node.parameters.setdefault(parameter[2] or "", _Node())
        if method in node.routes:
            raise ConfigurationError(f"{method} {template} is declared twice: {node.routes[method].template} is there")
        node.routes[method] = Route(template, parameter_names(template), endpoint)

    def match(self, method: str, raw_path: bytes) -> tuple[Route, Values]:
        """The route of a percent-encoded path. Raises NotFound, MethodNotAllowed, InvalidArgument for bad encoding."""
        try:
            segments = [unquote(text, errors="strict") for text in _split(raw_path.decode("ascii"))]
        except UnicodeError:
            raise InvalidArgument("the path must be percent-encoded UTF-8", reason="PATH_NOT_UTF8") from None
        found = _find(self._root, segments, 0) or _find_without_slash(self._root, segments)
        if found is None:
            raise NotFound("there is nothing at this path; /docs lists what there is", reason="ROUTE_NOT_FOUND")
        node, values = found
        route = node.routes.get(method)
        if route is None:
            raise MethodNotAllowed(method, sorted(node.routes))
        return route, dict(zip(route.parameters, values, strict=True))


def parameter_names(template: str) -> tuple[str, ...]:
    """The dotted names of a template's parameters, from left to right."""
    return tuple(match[1] for segment in _split(template) if (match := _PARAMETER.fullmatch(segment)))


def _split(path: str) -> list[str]:
    # A trailing slash makes an empty last segment: a path of its own, which a template may or may not have.
    return path.removeprefix("/").split("/")


def _parameter(template: str, segment: str) -> re.Match[str] | None:
    """The parameter that a segment is, or None for a literal."""
    parameter = _PARAMETER.fullmatch(segment)
    if parameter is None and not (template.startswith("/") and _LITERAL.fullmatch(segment)):
        raise ConfigurationError(f"the path template {template!r} cannot be served: {segment!r} is not understood")
    return parameter


def _find(node: _Node, segments: list[str], index: int) -> tuple[_Node, list[str]] | None:
    """Where the segments from `index` on lead, with the values of the parameters on the way."""
    if index == len(segments):
        return (node, []) if node.routes else None
    literal = node.literals.get(segments[index])
    found = _find(literal, segments, index + 1) if literal else None
    return found or _find_parameter(node, segments, index)


def _find_without_slash(node: _Node, segments: list[str]) -> tuple[_Node, list[str]] | None:
    """What is asked for with a trailing slash and is there only without: clients of earlier systems write either."""
    return _find(node, segments[:-1], 0) if len(segments) > 1 and not segments[-1] else None


def _find_parameter(node: _Node, segments: list[str], index: int) -> tuple[_Node, list[str]] | None:
    segment = segments[index]
    value, _, verb = segment.rpartition(":")
    for suffix, text in ((verb, value), ("", segment)):
        after = node.parameters.get(suffix)
        found = _find(after, segments, index + 1) if after and text else None
        if found:
            return found[0], [text, *found[1]]
    return None

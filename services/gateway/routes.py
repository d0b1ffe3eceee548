"""Which endpoint a path leads to.

A tree of path segments, built once from the templates of HTTP rules. Starlette tries its routes one after the
other, by regular expression and in the order of declaration; here a request costs one dictionary look-up per
segment however many routes there are, and a literal segment wins over a wildcard whatever the order.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, NotFound
from services.gateway.path_template import ONE, REST, PathTemplate, Variable, parse_template
from services.gateway.problems import MethodNotAllowed

Values = Mapping[str, str]
"""The values in a path, by the dotted name of the field that each fills."""
Endpoint = Callable[[Request, Values], Awaitable[Response]]
_ReadValue = Callable[[Sequence[str], Sequence[str]], str]
"""From the segments of a path, as they came and decoded, to the value of a variable."""


@dataclass(frozen=True)
class Route:
    """One HTTP method at one template."""

    template: str
    readers: Mapping[str, _ReadValue]
    endpoint: Endpoint


@dataclass
class _Node:
    routes: dict[str, Route] = field(default_factory=dict)
    """By HTTP method."""
    literals: dict[str, "_Node"] = field(default_factory=dict)
    ones: dict[str, "_Node"] = field(default_factory=dict)
    """The node after one segment of any text, by the verb (`:cancel`) that ends it, empty for none."""
    rests: dict[str, "_Node"] = field(default_factory=dict)
    """The node after all segments that are left, by the verb that ends the last of them."""


class Router:
    """Routes by template."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, method: str, template: str, endpoint: Endpoint) -> None:
        """Raises ConfigurationError for a template that cannot be read, or that leads somewhere already."""
        path = parse_template(template)
        node = self._root
        for index, segment in enumerate(path.segments, start=1):
            verb = path.verb if index == len(path.segments) else ""
            if segment == ONE:
                node = node.ones.setdefault(verb, _Node())
            elif segment == REST:
                node = node.rests.setdefault(verb, _Node())
            else:
                node = node.literals.setdefault(segment, _Node())
        if method in node.routes:
            raise ConfigurationError(f"{method} {template} is declared twice: {node.routes[method].template} is there")
        readers = {variable.name: _reader(path, variable) for variable in path.variables}
        node.routes[method] = Route(template, readers, endpoint)

    def match(self, method: str, raw_path: bytes) -> tuple[Route, Values]:
        """The route of a percent-encoded path. Raises NotFound, MethodNotAllowed, InvalidArgument for bad encoding."""
        try:
            raw = raw_path.decode("ascii").removeprefix("/").split("/")
            segments = [unquote(text, errors="strict") for text in raw]
        except UnicodeError:
            raise InvalidArgument("the path must be percent-encoded UTF-8", reason="PATH_NOT_UTF8") from None
        node = _find(self._root, segments, 0)
        if node is None and len(segments) > 1 and not segments[-1]:
            # Asked for with a trailing slash and there only without: clients of earlier systems write either.
            raw, segments = raw[:-1], segments[:-1]
            node = _find(self._root, segments, 0)
        if node is None:
            raise NotFound("there is nothing at this path; /docs lists what there is", reason="ROUTE_NOT_FOUND")
        route = node.routes.get(method)
        if route is None:
            raise MethodNotAllowed(method, sorted(node.routes))
        return route, {name: read(raw, segments) for name, read in route.readers.items()}


def _reader(path: PathTemplate, variable: Variable) -> _ReadValue:
    start, stop = variable.start, None if variable.segments[-1] == REST else variable.stop
    verb = f":{path.verb}" if path.verb and variable.stop == len(path.segments) else ""
    if variable.is_one_segment:
        return lambda raw, segments: segments[start].removesuffix(verb)
    return lambda raw, segments: "/".join(map(_unquote_all_but_slashes, raw[start:stop])).removesuffix(verb)


def _unquote_all_but_slashes(text: str) -> str:
    # In a value of several segments an escaped slash stays escaped: else nobody could tell it from those between them.
    return unquote(text.replace("%2F", "%252F").replace("%2f", "%252f"))


def _find(node: _Node, segments: list[str], index: int) -> _Node | None:
    """Where the segments from `index` on lead."""
    if index == len(segments):
        return node if node.routes else _find_rest(node, "")
    literal = node.literals.get(segments[index])
    found = _find(literal, segments, index + 1) if literal else None
    return found or _find_wildcard(node, segments, index)


def _find_wildcard(node: _Node, segments: list[str], index: int) -> _Node | None:
    segment = segments[index]
    value, _, verb = segment.rpartition(":")
    for suffix, text in ((verb, value), ("", segment)):
        after = node.ones.get(suffix)
        found = _find(after, segments, index + 1) if after and text else None
        if found:
            return found
    return _find_rest(node, segments[-1])


def _find_rest(node: _Node, last: str) -> _Node | None:
    """Where all segments that are left lead, of which `last` is the last."""
    _, colon, verb = last.rpartition(":")
    return (node.rests.get(verb) if colon else None) or node.rests.get("")

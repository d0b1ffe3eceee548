"""Path templates as OpenAPI has them: a parameter for each wildcard, because a parameter is no more than a segment."""

from collections.abc import Iterator
from dataclasses import dataclass

from services.gateway.path_template import ONE, REST, PathTemplate, Variable, parse_template


@dataclass(frozen=True)
class PathParameter:
    """What a client puts in the place of one wildcard."""

    name: str
    variable: Variable | None
    """Whose value it is or is a part of; None where the contract does not ask for it."""
    wildcard: str


def openapi_path(template: str) -> tuple[str, list[PathParameter]]:
    """The path, and its parameters from left to right: named after their field, counted where it has several."""
    path = parse_template(template)
    segments, found = list(path.segments), []
    for index, parameter in _parameters(path):
        found.append(parameter)
        segments[index] = f"{{{parameter.name}}}"
    return path.joined(segments), found


def _parameters(path: PathTemplate) -> Iterator[tuple[int, PathParameter]]:
    owners = {index: one for one in path.variables for index in range(one.start, one.stop)}
    counts: dict[str, int] = {}
    for index, segment in enumerate(path.segments):
        if segment not in (ONE, REST):
            continue
        owner = owners.get(index)
        base = owner.name if owner else "any"
        counts[base] = counts.get(base, 0) + 1
        is_only = owner is not None and sum(part in (ONE, REST) for part in owner.segments) == 1
        yield index, PathParameter(base if is_only else f"{base}_{counts[base]}", owner, segment)

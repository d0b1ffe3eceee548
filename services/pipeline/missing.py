"""The value that is not there. JMESPath calls it null; a template must tell it from a null that somebody stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.pipeline.errors import clip

_NAMES_SHOWN = 12


class Missing:
    """Stands for null while an expression is evaluated and remembers what was looked for, and where."""

    def __init__(self, spelling: str, owner: Any) -> None:
        self._spelling = spelling
        self._prefix = ""
        self._owner = owner

    def put_under(self, prefix: str) -> None:
        """Notes the path that led to where the part was looked for: `steps.clock`."""
        self._prefix = _joined(prefix, self._prefix)

    def __str__(self) -> str:
        owner = self._prefix or "the value there"
        return f"{_joined(self._prefix, self._spelling)} is missing: {owner} {describe(self._owner)}"

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Missing)

    def __bool__(self) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _joined(prefix: str, rest: str) -> str:
    return f"{prefix}.{rest}" if prefix and rest and not rest.startswith("[") else prefix + rest


def describe(value: Any) -> str:
    """What a value offers, for somebody who looked for something else in it."""
    match value:
        case None:
            return "is null"
        case Mapping():
            names = sorted(map(str, value))
            shown = ", ".join(clip(name, 40) for name in names[:_NAMES_SHOWN])
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            return f"has {shown}{more}" if names else "is an empty object"
        case bool():
            return "is a boolean"
        case str():
            return "is a string"
        case int() | float():
            return "is a number"
        case Sequence():
            return f"is a list of {len(value)}"
    return "is no JSON value"

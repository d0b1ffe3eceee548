"""Enums: `AGENT_STATUS_IDLE` on the wire is `idle` in a model."""

from enum import StrEnum
from typing import Any, TypeVar

from services.chassis.enums import prefix

_E = TypeVar("_E", bound=StrEnum)


def to_enum(member: StrEnum, wire: Any) -> Any:
    """The member's number on the wire; `wire` is the generated enum."""
    return wire.Value(prefix(wire.DESCRIPTOR.name) + member.value.upper())


def from_enum(kind: type[_E], wire: Any, number: int) -> _E:
    """The model's member for a number that validation has let through."""
    return kind(wire.Name(number).removeprefix(prefix(wire.DESCRIPTOR.name)).lower())

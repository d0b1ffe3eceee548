"""Enums: `SCHEDULE_KIND_CRON` on the wire is `cron` in a model."""

import re
from enum import StrEnum
from typing import Any, TypeVar

_E = TypeVar("_E", bound=StrEnum)


def to_enum(member: StrEnum, wire: Any) -> Any:
    """The member's number on the wire; `wire` is the generated enum."""
    return wire.Value(_prefix(wire) + member.value.upper())


def from_enum(kind: type[_E], wire: Any, number: int) -> _E:
    """The model's member for a number that validation has let through."""
    return kind(wire.Name(number).removeprefix(_prefix(wire)).lower())


def _prefix(wire: Any) -> str:
    name: str = wire.DESCRIPTOR.name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"

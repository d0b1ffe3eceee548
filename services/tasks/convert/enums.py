"""Enums: `SCHEDULE_KIND_CRON` on the wire is `cron` in a model."""

import re
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

_E = TypeVar("_E", bound=StrEnum)


def to_enum(member: StrEnum, wire: Any) -> Any:
    """The member's number on the wire; `wire` is the generated enum."""
    return wire.Value(_prefix(wire.DESCRIPTOR.name) + member.value.upper())


def from_enum(kind: type[_E], wire: Any, number: int) -> _E:
    """The model's member for a number that validation has let through."""
    return kind(wire.Name(number).removeprefix(_prefix(wire.DESCRIPTOR.name)).lower())


@cache
def _prefix(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"

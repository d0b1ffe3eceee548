"""Free JSON, which is bounded in size and depth."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from services.chassis.errors import Violation

MAX_DEPTH = 20
"""So that a list of what has some can be read by everybody: protobuf reads no more than 100 messages inside another."""


def faults(field: str, value: Mapping[str, Any] | None, max_bytes: int) -> Iterator[Violation]:
    """What is wrong with a field that holds free JSON."""
    if not value:
        return
    if _is_deeper(value, MAX_DEPTH):
        yield Violation(field, f"is nested deeper than {MAX_DEPTH} levels")
    elif (size := len(orjson.dumps(value))) > max_bytes:
        yield Violation(field, f"would be {size} bytes as JSON, at most {max_bytes} are allowed")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are inside one another more than so many times."""
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)

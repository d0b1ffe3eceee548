"""What can be wrong with metadata, and other JSON that may be anything that is neither large nor deep."""

from collections.abc import Mapping
from typing import Any

import orjson

from services.chassis.errors import Violation

MAX_BYTES = 16 * 1024
MAX_DEPTH = 20
"""So that a list of what has metadata can be read by everybody: protobuf reads no more than 100 messages inside one
another."""


def metadata_faults(metadata: Mapping[str, Any]) -> list[Violation]:
    """Its faults as the field `metadata` of a request, at most one."""
    return json_faults("metadata", metadata, MAX_BYTES)


def json_faults(field: str, value: Mapping[str, Any], max_bytes: int) -> list[Violation]:
    """The faults of a field that holds any JSON, at most one."""
    if _is_deeper(value, MAX_DEPTH):
        return [Violation(field, f"is nested deeper than {MAX_DEPTH} levels")]
    size = len(orjson.dumps(value))
    if size <= max_bytes:
        return []
    return [Violation(field, f"would be {size} bytes as JSON, at most {max_bytes} are allowed")]


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are inside one another more than so many times."""
    if not isinstance(value, Mapping | list):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)

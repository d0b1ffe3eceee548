"""JSON text as values: exactly what its sender wrote, or a fault."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from services.gateway.transcode.faults import Fault, Faults, join

# orjson makes floats of integers beyond 64 bits, which have 19 digits (below -2**63) or more, and refuses what no float
# can be.
_LONG_NUMBER = b"0" * 19
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)


def read_text(data: bytes) -> object:
    """The value. Raises orjson.JSONDecodeError, and Faults naming every key that an object has more than once.

    What orjson may not have read exactly is read again by a slower parser; nearly nothing is.
    """
    value = orjson.loads(data)
    if _LONG_NUMBER in data.translate(_DIGITS_AS_ZEROS) or _may_repeat(data, value):
        return _read_exactly(data, value)
    return value


def _may_repeat(data: bytes, value: object) -> bool:
    """Whether a key may have been read over: with it went its colon. Only an escaped colon could make up for that."""
    try:
        return orjson.dumps(value).count(b":") != data.count(b":") or b"\\u003" in data
    except orjson.JSONEncodeError:
        return False  # far deeper than anything that is taken


def _read_exactly(data: bytes, read: object) -> object:
    try:
        value: object = json.loads(data, object_pairs_hook=_object)
    except RecursionError:
        return read  # as above
    if faults := list(_repeated(value, "")):
        raise Faults(faults)
    return value


class _Repeating(dict[str, Any]):
    """An object with keys that were given more than once."""

    names: list[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) == len(pairs):
        return built
    repeating = _Repeating(built)
    repeating.names = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    return repeating


def _repeated(value: object, place: str) -> Iterator[Fault]:
    if isinstance(value, _Repeating):
        yield from ((join(place, name), "is given more than once") for name in value.names)
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _repeated(item, join(place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, join(place, f"[{index}]"))

"""One value of a field, from JSON or from text, as protobuf takes it.

A body says what type each value has, and must say the right one. Three leniencies: a 64-bit integer may be a decimal
string, since many readers of JSON cannot hold it; an integer may be written with a fraction of nothing, which JSON
Schema calls one, too; and the name of an enum's value may be in capitals or small letters.
In a path or a query everything is text.
"""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from services.chassis import enums
from services.gateway.transcode.faults import Faults

Read = Callable[[Any], Any]
"""From a JSON value, or a text, to what protobuf takes. Raises Faults."""

_INTEGER = re.compile(r"-?\d{1,20}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FLOAT = struct.Struct("<f")
_INT32, _UINT32 = (-(2**31), 2**31 - 1), (0, 2**32 - 1)
_INT64, _UINT64 = (-(2**63), 2**63 - 1), (0, 2**64 - 1)
_RANGES = {
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}


def json_reader(field: FieldDescriptor) -> Read:
    """What reads one JSON value of a field that is no message."""
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.type in _RANGES:
        return _integer(*_RANGES[field.type])
    return _FROM_JSON[field.type]


def text_reader(field: FieldDescriptor) -> Read:
    """What reads one value of a field that is no message from a path, a query or a map's key."""
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.type in _RANGES:
        return _integer_text(*_RANGES[field.type])
    return _FROM_TEXT[field.type]


def _enum(enum: EnumDescriptor) -> Read:
    numbers = {name.lower(): number for name, number in enums.accepted_names(enum).items()}
    offered = ", ".join(enums.choices(enum))

    def read(value: object) -> int:
        number = numbers.get(value.lower()) if isinstance(value, str) else None
        if number is None:
            raise Faults.of(f"must be one of {offered}")
        return number

    return read


def _integer(low: int, high: int) -> Read:
    is_wide = high > _UINT32[1]
    wrong = f"must be an integer from {low} to {high}"

    def is_written_otherwise(value: object) -> bool:
        if isinstance(value, str):
            return is_wide and _INTEGER.fullmatch(value) is not None
        return isinstance(value, float) and value.is_integer()

    def read(value: Any) -> int:
        if is_written_otherwise(value):
            value = int(value)
        if type(value) is int and low <= value <= high:
            return value
        raise Faults.of(wrong)

    return read


def _integer_text(low: int, high: int) -> Read:
    wrong = f"must be an integer from {low} to {high}"

    def read(text: str) -> int:
        if _INTEGER.fullmatch(text) and low <= int(text) <= high:
            return int(text)
        raise Faults.of(wrong)

    return read


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    raise Faults.of("must be a string")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Faults.of("must be true or false")


def _boolean_text(text: str) -> bool:
    """Also as clients write it whose language spells it so: `True`, `1`."""
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise Faults.of("must be true or false")


def _double(value: object) -> float:
    if type(value) in (int, float) and math.isfinite(number := float(value)):  # type: ignore[arg-type]
        return number
    raise Faults.of("must be a number")


def _float(value: object) -> float:
    number = _double(value)
    try:
        _FLOAT.pack(number)
    except OverflowError:
        raise Faults.of("is too large for a 32-bit float") from None
    return number


def _number_text(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise Faults.of("must be a number")
    return float(text)


def _bytes(value: object) -> bytes:
    """Takes base64 in either alphabet, with or without its padding."""
    if isinstance(value, str):
        standard = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise Faults.of("must be base64")


_FROM_JSON: dict[int, Read] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _boolean,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
_FROM_TEXT: dict[int, Read] = _FROM_JSON | {
    FieldDescriptor.TYPE_BOOL: _boolean_text,
    FieldDescriptor.TYPE_DOUBLE: lambda text: _double(_number_text(text)),
    FieldDescriptor.TYPE_FLOAT: lambda text: _float(_number_text(text)),
}

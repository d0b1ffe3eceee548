"""google.protobuf.Struct and Value to plain Python and back, without a detour through JSON text."""

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import ListValue, Struct, Value

# Above it a double no longer tells neighbouring integers apart, and orjson prints no integer beyond 64 bits.
_LARGEST_EXACT_INTEGER = 2**53
# dict first: whether something else is a Mapping takes long to find out.
_OBJECTS = (dict, Mapping)


def from_struct(struct: Struct) -> dict[str, Any]:
    """The struct as a dict. Doubles that are whole numbers become ints, as their writers meant them."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: Value) -> Any:
    """One value as str, int, float, bool, None, list or dict."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return from_list(value.list_value)
    return None


def from_list(values: ListValue) -> list[Any]:
    """The values of a list."""
    return [from_value(item) for item in values.values]


def to_struct(values: Mapping[str, Any]) -> Struct:
    """A dict of JSON values as a struct."""
    struct = Struct()
    for key, value in values.items():
        _fill(struct.fields[key], value)
    return struct


def to_value(value: Any) -> Value:
    """A JSON value as a Value."""
    filled = Value()
    _fill(filled, value)
    return filled


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, in whatever order their names are. Python takes true for 1."""
    texts = [orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in (one, other)]
    return texts[0] == texts[1]


def _number(number: float) -> int | float:
    whole = number.is_integer() and abs(number) <= _LARGEST_EXACT_INTEGER
    return int(number) if whole else number


def _fill(target: Value, value: Any) -> None:
    if value is None:
        target.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, _OBJECTS):
        target.struct_value.SetInParent()  # an empty one is one, too
        for key, item in value.items():
            _fill(target.struct_value.fields[key], item)
    else:
        target.list_value.SetInParent()
        for item in value:
            _fill(target.list_value.values.add(), item)

"""google.protobuf.Struct, Value and ListValue: read from JSON of any shape."""

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from services.gateway.transcode.faults import Fault, Faults

MAX_DEPTH = 30
"""How deep objects and lists may be nested in a request.

protobuf's runtime refuses to read more than 100 messages inside one another, and a Struct takes three for every
level of JSON. What is accepted here must still be readable inside the largest answer that will carry it.
"""

TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


def read_struct(message: Struct, value: object, depth: int) -> None:
    """Takes a JSON object. `depth` says how many containers are around it."""
    if type(value) is not dict:
        raise Faults.of("must be an object")
    _enter(depth)
    fields = message.fields
    faults: list[Fault] = []
    for key, item in value.items():
        try:
            read_value(fields[key], item, depth + 1)
        except Faults as wrong:
            faults += wrong.at(key)
    if faults:
        raise Faults(faults)


def read_list(message: ListValue, value: object, depth: int) -> None:
    """Takes a JSON array."""
    if type(value) is not list:
        raise Faults.of("must be a list")
    _enter(depth)
    faults: list[Fault] = []
    for index, item in enumerate(value):
        try:
            read_value(message.values.add(), item, depth + 1)
        except Faults as wrong:
            faults += wrong.at(f"[{index}]")
    if faults:
        raise Faults(faults)


def read_value(message: Value, value: object, depth: int) -> None:
    """Takes any JSON value, null included."""
    if isinstance(value, str):
        message.string_value = value
    elif value is None:
        message.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = _exact(value)
    elif isinstance(value, dict):
        message.struct_value.SetInParent()
        read_struct(message.struct_value, value, depth)
    else:
        message.list_value.SetInParent()
        read_list(message.list_value, value, depth)


def _enter(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise Faults.of(TOO_DEEP)


def _exact(value: float) -> float:
    number = float(value)
    if number != value:
        raise Faults.of("is an integer too large to keep exactly here: send it as a string")
    return number

"""Messages onto JSON.

snake_case names; enums by short name; times in UTC with microseconds; 64-bit integers as numbers; bytes as base64.
Every field is always there, so that an answer's shape never depends on its values: an unset field is null when
its type tells unset from empty (a message, `optional`, a oneof), and its default otherwise.
"""

import base64
import math
import struct
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.chassis import enums
from services.chassis.config import ConfigurationError
from services.chassis.structs import from_list, from_struct, from_value
from services.gateway.transcode import times
from services.gateway.transcode.field_masks import print_field_mask
from services.gateway.transcode.wrappers import WRAPPED, wrapper_printer

_FLOAT = struct.Struct("<f")

Print = Callable[[Any], Any]
"""From a field's value to what orjson prints as JSON."""

WELL_KNOWN: dict[str, Print] = {
    "google.protobuf.Timestamp": times.print_timestamp,
    "google.protobuf.Duration": times.print_duration,
    "google.protobuf.Struct": from_struct,
    "google.protobuf.Value": from_value,
    "google.protobuf.ListValue": from_list,
    "google.protobuf.FieldMask": print_field_mask,
}


class Printers:
    """Compiles printers, each message type's once."""

    def __init__(self) -> None:
        self._compiled: dict[str, Print] = dict(WELL_KNOWN)

    def of(self, descriptor: Descriptor) -> Print:
        """The function that turns a message of this type into what orjson prints."""
        known = self._compiled.get(descriptor.full_name)
        if known is not None:
            return known
        refuse_unsupported(descriptor)
        blank: dict[str, Any] = {}
        fields: dict[FieldDescriptor, tuple[str, Print | None]] = {}

        def print_message(message: Message) -> dict[str, Any]:
            # Only what is set is looked at: most messages leave half of their fields empty.
            printed = blank.copy()
            for field, value in message.ListFields():
                name, convert = fields[field]
                printed[name] = value if convert is None else convert(value)
            return printed

        # Known before its fields are compiled, because one of them may be of this very type.
        self._compiled[descriptor.full_name] = print_message
        for field in descriptor.fields:
            convert = self._field_converter(field)
            fields[field] = field.name, convert
            blank[field.name] = _blank(field, convert)
        return print_message

    def of_field(self, field: FieldDescriptor) -> Callable[[Message], Any]:
        """From a message to the JSON of one of its fields."""
        name, get, convert = field.name, attrgetter(field.name), self._field_converter(field) or _same
        if field.has_presence:
            return lambda message: convert(get(message)) if message.HasField(name) else None
        return lambda message: convert(get(message))

    def _field_converter(self, field: FieldDescriptor) -> Print | None:
        """From what the field holds to its JSON; None where that is the same."""
        if entry := map_entry(field):
            print_key = _print_bool_key if entry["key"].type == FieldDescriptor.TYPE_BOOL else str
            print_item = self._converter(entry["value"]) or _same
            return lambda items: {print_key(key): print_item(item) for key, item in items.items()}
        convert = self._converter(field)
        if not field.is_repeated:
            return convert
        return list if convert is None else lambda items: [convert(item) for item in items]

    def _converter(self, field: FieldDescriptor) -> Print | None:
        """From one value of the field to its JSON; None where that is the value itself."""
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            names: dict[int, str | int] = dict(enums.short_names(field.enum_type))
            return lambda number: names.get(number, number)
        return _SCALARS.get(field.type)


def _blank(field: FieldDescriptor, convert: Print | None) -> Any:
    """What is printed for a field that is not set."""
    if field.is_repeated:
        return {} if map_entry(field) else []
    if field.has_presence:
        return None
    return convert(field.default_value) if convert else field.default_value


def map_entry(field: FieldDescriptor) -> Mapping[str, FieldDescriptor] | None:
    """The `key` and the `value` of a field declared as `map<K, V>`; None for any other field."""
    entry = field.message_type
    return entry.fields_by_name if entry is not None and entry.GetOptions().map_entry else None


def refuse_unsupported(descriptor: Descriptor) -> None:
    """Raises ConfigurationError for a type whose JSON is not that of its fields, and that is not known here."""
    # google.protobuf.Empty has no fields, and is the empty object.
    if descriptor.full_name.startswith("google.") and descriptor.fields:
        raise ConfigurationError(f"{descriptor.full_name} has no JSON form here: use another type in REST methods")


def is_object(descriptor: Descriptor) -> bool:
    """Whether the JSON of a message is an object whatever is in it."""
    return descriptor.full_name not in WELL_KNOWN or descriptor.full_name == "google.protobuf.Struct"


def _same(value: Any) -> Any:
    return value


def _print_bool_key(key: bool) -> str:
    return "true" if key else "false"


def _print_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _print_float(value: float) -> float:
    """The shortest decimal that is the same 32-bit float: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return value
    candidates = (float(f"{value:.{digits}g}") for digits in (6, 7, 8))
    return next((short for short in candidates if _round_to_float(short) == value), float(f"{value:.9g}"))


def _round_to_float(value: float) -> float:
    try:
        (rounded,) = _FLOAT.unpack(_FLOAT.pack(value))
    except OverflowError:
        return math.inf
    return float(rounded)


_SCALARS: dict[int, Print] = {
    FieldDescriptor.TYPE_BYTES: _print_bytes,
    FieldDescriptor.TYPE_FLOAT: _print_float,
}
WELL_KNOWN |= {name: wrapper_printer(_SCALARS.get(field.type)) for name, field in WRAPPED.items()}

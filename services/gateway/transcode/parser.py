"""A JSON body onto a message.

Strict on purpose: an unknown key, a wrong type, a number out of range is a fault that names its place, and all of
them are found, not only the first. null stands for `not given`, except where the field may hold any JSON.
"""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.gateway.transcode import free_json, scalars, times
from services.gateway.transcode.faults import Fault, Faults
from services.gateway.transcode.field_masks import read_field_mask
from services.gateway.transcode.printer import map_entry, refuse_unsupported
from services.gateway.transcode.wrappers import WRAPPED, wrapper_reader

Fill = Callable[[Any, Any, int], None]
"""Fills a message from a JSON value around which there are so many containers. Raises Faults."""
Put = Callable[[Message, Any, int], None]
"""Puts a JSON value into one field of a message. Raises Faults."""

_NAMES_OFFERED = 24


def _flat(read: Callable[[Any, object], None]) -> Fill:
    return lambda message, value, _: read(message, value)


WELL_KNOWN: dict[str, Fill] = {
    "google.protobuf.Timestamp": _flat(times.read_timestamp),
    "google.protobuf.Duration": _flat(times.read_duration),
    "google.protobuf.Struct": free_json.read_struct,
    "google.protobuf.Value": free_json.read_value,
    "google.protobuf.ListValue": free_json.read_list,
    "google.protobuf.FieldMask": _flat(read_field_mask),
    **{name: _flat(wrapper_reader(scalars.json_reader(field))) for name, field in WRAPPED.items()},
}


class Parsers:
    """Compiles parsers, each message type's once."""

    def __init__(self) -> None:
        self._compiled: dict[str, Fill] = dict(WELL_KNOWN)

    def of(self, descriptor: Descriptor) -> Fill:
        """The function that fills a message of this type from JSON."""
        known = self._compiled.get(descriptor.full_name)
        if known is not None:
            return known
        refuse_unsupported(descriptor)
        puts: dict[str, Put] = {}
        # Known before its fields are compiled, because one of them may be of this very type.
        self._compiled[descriptor.full_name] = fill = _fill_object(puts)
        puts.update((field.name, self.of_field(field)) for field in descriptor.fields)
        return fill

    def of_request(self, descriptor: Descriptor, refused: Mapping[str, str]) -> Fill:
        """Like `of`, for a whole request some of whose fields are not the body's to give: name to why."""
        puts = {field.name: self.of_field(field) for field in descriptor.fields if field.name not in refused}
        return _fill_object(puts | {name: _refuse(why) for name, why in refused.items()}, offered=puts)

    def of_field(self, field: FieldDescriptor) -> Put:
        """The function that puts JSON into this field of a message."""
        put = self._put_value(field)
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            put = _alone(oneof.name, ", ".join(member.name for member in oneof.fields), put)
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Value":
            return put
        return _unless_null(put)

    def _put_value(self, field: FieldDescriptor) -> Put:
        if entry := map_entry(field):
            return self._put_map(field.name, entry["key"], entry["value"])
        if field.message_type is not None:
            fill = self.of(field.message_type)
            return _put_messages(field.name, fill) if field.is_repeated else _put_message(field.name, fill)
        read = scalars.json_reader(field)
        return _put_scalars(field.name, read) if field.is_repeated else _put_scalar(field.name, read)

    def _put_map(self, name: str, key: FieldDescriptor, value: FieldDescriptor) -> Put:
        read_key = scalars.text_reader(key)
        if value.message_type is not None:
            fill = self.of(value.message_type)
            return _put_map(name, lambda items, key, item, depth: fill(items[read_key(key)], item, depth))
        read = scalars.json_reader(value)
        return _put_map(name, lambda items, key, item, _: items.__setitem__(read_key(key), read(item)))


def _fill_object(puts: Mapping[str, Put], offered: Mapping[str, Put] | None = None) -> Fill:
    names = puts if offered is None else offered

    def fill(message: Message, value: object, depth: int) -> None:
        if type(value) is not dict:
            raise Faults.of("must be an object")
        if depth >= free_json.MAX_DEPTH:
            raise Faults.of(free_json.TOO_DEEP)
        faults: list[Fault] = []
        for key, item in value.items():
            try:
                put = puts.get(key) or _refuse(unknown(names))
                put(message, item, depth + 1)
            except Faults as wrong:
                faults += wrong.at(key)
        if faults:
            raise Faults(faults)

    return fill


def unknown(names: Mapping[str, object]) -> str:
    """Says that a name is not known, and, as far as they can be read at a glance, which are."""
    if not names:
        return "is not known; nothing can be given here"
    more = ", ..." if len(names) > _NAMES_OFFERED else ""
    return f"is not known; known are {', '.join(list(names)[:_NAMES_OFFERED])}{more}"


def _refuse(why: str) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        raise Faults.of(why)

    return put


def _unless_null(put: Put) -> Put:
    def put_given(message: Message, value: object, depth: int) -> None:
        if value is not None:
            put(message, value, depth)

    return put_given


def _alone(oneof: str, members: str, put: Put) -> Put:
    def put_first(message: Message, value: object, depth: int) -> None:
        if message.WhichOneof(oneof) is not None:
            raise Faults.of(f"only one of {members} may be given")
        put(message, value, depth)

    return put_first


def _put_scalar(name: str, read: scalars.Read) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        setattr(message, name, read(value))

    return put


def _put_message(name: str, fill: Fill) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, value, depth)

    return put


def _put_scalars(name: str, read: scalars.Read) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        items = getattr(message, name)
        each(value, lambda item: items.append(read(item)))

    return put


def _put_messages(name: str, fill: Fill) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        items = getattr(message, name)
        each(value, lambda item: fill(items.add(), item, depth + 1))

    return put


def each(value: object, take: Callable[[Any], object]) -> None:
    """Takes every item of a JSON array; the faults of each are found at its index."""
    if type(value) is not list:
        raise Faults.of("must be a list")
    faults: list[Fault] = []
    for index, item in enumerate(value):
        try:
            take(item)
        except Faults as wrong:
            faults += wrong.at(f"[{index}]")
    if faults:
        raise Faults(faults)


def _put_map(name: str, put_item: Callable[[Any, str, Any, int], None]) -> Put:
    def put(message: Message, value: object, depth: int) -> None:
        if type(value) is not dict:
            raise Faults.of("must be an object")
        items = getattr(message, name)
        faults: list[Fault] = []
        for key, item in value.items():
            try:
                put_item(items, key, item, depth + 1)
            except Faults as wrong:
                faults += wrong.at(key)
        if faults:
            raise Faults(faults)

    return put

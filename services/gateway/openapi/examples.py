"""Examples of what is sent and answered, made from the contracts: from types, rules and names, always the same.

Where what comes of that says nothing to people, the field has an `example` of its own in its contract.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from baton.api.v1 import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.chassis import enums
from services.gateway.openapi.rules import Schema, allowed_numbers, is_required, keywords, rules_of, rules_of_values
from services.gateway.transcode.printer import map_entry
from services.gateway.transcode.wrappers import WRAPPED

UUID = "0195a7c4-5e1b-7d3a-9c42-6f0d8b2e7a91"
_TIME = "2026-03-01T02:30:00.000000Z"
_BYTES = "YmF0b24="
_WELL_KNOWN: Mapping[str, Any] = {
    "google.protobuf.Timestamp": _TIME,
    "google.protobuf.Duration": "30s",
    "google.protobuf.Struct": {"key": "value"},
    "google.protobuf.ListValue": ["value"],
    "google.protobuf.Value": "value",
    "google.protobuf.FieldMask": "name",
    **dict.fromkeys(WRAPPED, 1),
    "google.protobuf.BoolValue": True,
    "google.protobuf.StringValue": "value",
    "google.protobuf.BytesValue": _BYTES,
}
_TEXTS = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_FORMATS: Mapping[str, str] = {
    "uuid": UUID,
    "email": "someone@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uri-reference": "/",
}
_IS_ID = re.compile(r"(^|_)(ids?|by)$")
_NOTHING = "null"
_KEYS: Mapping[int, str] = {FieldDescriptor.CPPTYPE_STRING: "key", FieldDescriptor.CPPTYPE_BOOL: "true"}
_FRACTIONS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)

_Value = Callable[[FieldDescriptor, FieldDescriptor], Any]
"""An example of one value: of a field, and the rules' holder, which differ for the values of a map."""


def question(descriptor: Descriptor, without: Collection[str] = ()) -> Schema:
    """A request, or a message in one: what must be in it, and what has an example of its own."""
    given: Schema = {}
    for field in descriptor.fields:
        is_other = field.containing_oneof is not None and any(
            one.name in given for one in field.containing_oneof.fields
        )
        if field.name not in without and not is_other and (is_required(field) or own_example(field)):
            given[field.name] = question_value(field)
    return given


def question_value(field: FieldDescriptor) -> Any:
    """The value of a field in a request."""
    return _own(field) if own_example(field) else _container(field, _asked)


def answer(descriptor: Descriptor, around: tuple[Descriptor, ...] = ()) -> Any:
    """A message in an answer: every field is there. What may be null is, but for messages."""
    if descriptor.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[descriptor.full_name]
    return {field.name: _answer_field(field, (*around, descriptor)) for field in descriptor.fields}


def answer_value(field: FieldDescriptor) -> Any:
    """The value of a field in an answer."""
    return _answer_field(field, ())


def own_example(field: FieldDescriptor) -> str:
    """What the contract gives as an example of the field; empty for nothing."""
    return field.GetOptions().Extensions[annotations_pb2.example]


def _own(field: FieldDescriptor) -> Any:
    text = own_example(field)
    if text == _NOTHING:
        return None
    message = field.message_type
    is_text = message.full_name in _TEXTS if message else field.enum_type or field.type == FieldDescriptor.TYPE_STRING
    return text if is_text and not field.is_repeated else json.loads(text)


def _answer_field(field: FieldDescriptor, around: tuple[Descriptor, ...]) -> Any:
    oneof = field.containing_oneof
    if oneof is not None and oneof.fields[0] is not field:
        return None
    if own_example(field):
        return _own(field)
    if field.message_type in around:
        return [] if field.is_repeated else None
    if field.has_presence and field.message_type is None:
        return None
    return _container(field, lambda one, _: _answered(one, around))


def _container(field: FieldDescriptor, value: _Value) -> Any:
    if entry := map_entry(field):
        return {_KEYS.get(entry["key"].cpp_type, "1"): value(entry["value"], field)}
    if field.is_repeated:
        return [value(field, field)] * max(1, rules_of(field).repeated.min_items)
    return value(field, field)


def _answered(field: FieldDescriptor, around: tuple[Descriptor, ...]) -> Any:
    if field.message_type is not None:
        return answer(field.message_type, around)
    if field.enum_type is not None:
        return enums.choices(field.enum_type)[0]
    if field.type == FieldDescriptor.TYPE_STRING:
        return UUID if _IS_ID.search(field.name) else ""
    return False if field.type == FieldDescriptor.TYPE_BOOL else _scalar(field, {})


def _asked(field: FieldDescriptor, holder: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name) or question(field.message_type)
    rules = rules_of_values(holder)
    if field.enum_type is not None:
        names = enums.short_names(field.enum_type)
        return next(names[number] for number in allowed_numbers(rules, list(names)) if number)
    said = keywords(rules)
    return _scalar(field, said["anyOf"][0] if "anyOf" in said else said)


def _scalar(field: FieldDescriptor, said: Schema) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(field.name, said)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BYTES
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    number = max(said.get("minimum", 1), said.get("exclusiveMinimum", 0) + 1)
    number = min(number, said.get("maximum", number))
    return float(number) if field.type in _FRACTIONS else number


def _text(name: str, said: Schema) -> str:
    if "enum" in said:
        return str(said["enum"][0])
    if "format" in said:
        return _FORMATS[said["format"]]
    if _IS_ID.search(name):
        return UUID
    return name

"""Random messages of any type, and what protobuf's own JSON says of them in the gateway's words."""

from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from services.gateway.transcode.printer import map_entry

_FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | TEXT | _FINITE | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
_SCALARS = {
    FieldDescriptor.CPPTYPE_STRING: TEXT,
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: _FINITE,
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(allow_nan=False, allow_infinity=False, width=32),
}


def _nested(message_class: Any, value: Any) -> Message:
    return json_format.ParseDict(value, message_class())  # type: ignore[no-any-return]


def _duration(nanos: int) -> Message:
    duration = Duration()
    duration.FromNanoseconds(nanos)
    return duration


WELL_KNOWN = {
    "google.protobuf.Timestamp": st.builds(
        lambda seconds, micros: Timestamp(seconds=seconds, nanos=micros * 1000),
        st.integers(-62_135_596_800, 253_402_300_799),
        st.integers(0, 999_999),
    ),
    "google.protobuf.Duration": st.integers(-(10**18), 10**18).map(_duration),
    "google.protobuf.Struct": st.dictionaries(TEXT, JSON, max_size=3).map(lambda value: _nested(Struct, value)),
    "google.protobuf.Value": JSON.map(lambda value: _nested(Value, value)),
    "google.protobuf.ListValue": st.lists(JSON, max_size=3).map(lambda value: _nested(ListValue, value)),
    # Of one word each, because protobuf writes others in camelCase.
    "google.protobuf.FieldMask": st.lists(st.from_regex(r"[a-z]+(\.[a-z]+)?", fullmatch=True), max_size=3).map(
        lambda paths: FieldMask(paths=paths)
    ),
}


def messages(descriptor: Descriptor, depth: int = 1) -> st.SearchStrategy[Any]:
    """Messages of this type with any of their fields set, themselves nested no deeper than `depth`."""
    if descriptor.full_name in WELL_KNOWN:
        return WELL_KNOWN[descriptor.full_name]
    fields = [field for field in descriptor.fields if depth > 0 or not _is_nested(field)]
    plain = {field.name: _values(field, depth) for field in fields if not _is_choice(field)}
    choices = {
        oneof.name: st.one_of(
            st.tuples(st.just(one.name), _values(one, depth)) for one in fields if one in oneof.fields
        )
        for oneof in descriptor.oneofs
        if len(oneof.fields) > 1
    }
    return st.builds(
        lambda given, chosen: GetMessageClass(descriptor)(**given, **dict(chosen.values())),
        st.fixed_dictionaries({}, optional=plain),
        st.fixed_dictionaries({}, optional=choices),
    )


def _is_nested(field: FieldDescriptor) -> bool:
    return field.message_type is not None and not field.message_type.full_name.startswith("google.")


def _is_choice(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if entry := map_entry(field):
        return st.dictionaries(_value(entry["key"], depth), _value(entry["value"], depth), max_size=2)
    value = _value(field, depth)
    return st.lists(value, max_size=2) if field.is_repeated else value


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    return _SCALARS[field.cpp_type]


def expected_json(message: Message) -> Any:
    """What protobuf's own printer says, with the gateway's rules applied to it."""
    printed = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return _adapt_message(cast(Descriptor, message.DESCRIPTOR), printed)


def _adapt_message(descriptor: Descriptor, printed: Any) -> Any:
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            whole, _, fraction = printed.removesuffix("Z").partition(".")
            return f"{whole}.{fraction.ljust(6, '0')}Z"
        case "google.protobuf.Duration":
            digits = printed.removesuffix("s")
            return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}s"
        case "google.protobuf.Int64Value" | "google.protobuf.UInt64Value":
            return int(printed)
        case name if name.startswith("google."):
            return printed
    return {field.name: _adapt_field(field, printed) for field in descriptor.fields}


def _adapt_field(field: FieldDescriptor, printed: dict[str, Any]) -> Any:
    if entry := map_entry(field):
        return {key: _adapt_value(entry["value"], item) for key, item in printed.get(field.name, {}).items()}
    if field.is_repeated:
        return [_adapt_value(field, item) for item in printed.get(field.name, [])]
    if field.name not in printed:
        return None if field.has_presence else _adapt_value(field, _default(field))
    return _adapt_value(field, printed[field.name])


def _default(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[0].name
    return "" if field.type == FieldDescriptor.TYPE_BYTES else field.default_value


def _adapt_value(field: FieldDescriptor, printed: Any) -> Any:
    if field.message_type is not None:
        return _adapt_message(field.message_type, printed)
    if field.enum_type is not None:
        return printed.removeprefix("PLANT_STATE_").lower()
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return int(printed)
    return printed

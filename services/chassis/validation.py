"""The rules that the contract puts on a request, checked before any of our code sees it."""

from collections.abc import Iterator
from typing import Any

import protovalidate
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from services.chassis import enums
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.structs import from_list, from_struct, from_value


def check(request: Message) -> None:
    """Raises InvalidArgument with one violation per broken rule, each naming its field."""
    found = [
        Violation(_path(violation), _description(violation, request))
        for violation in protovalidate.collect_violations(request)
    ]
    # PostgreSQL stores no NUL in text. Nearly no request has the byte, so most are not walked at all.
    if b"\x00" in request.SerializeToString():
        found += [Violation(path, "must not contain the character NUL") for path in _nul_paths(request, "")]
    if found:
        raise InvalidArgument.of(found)


def _description(violation: protovalidate.Violation, request: Message) -> str:
    """What is wrong. protovalidate names enum values by their numbers, which no caller has written, and does not tell
    what is missing from what is wrong."""
    if violation.proto.rule_id == "string.pattern" and violation.field_value == "":
        return f"is required: text that matches {violation.rule_value}"
    enum = _enum(violation, request) if violation.proto.rule_id.startswith("enum.") else None
    if enum is None:
        return violation.proto.message or violation.proto.rule_id
    allowed = violation.rule_value if violation.proto.rule_id == "enum.in" else enum.values_by_number
    names = ", ".join(name for number, name in enums.short_names(enum).items() if number and number in allowed)
    return f"must be one of {names}" if violation.field_value else f"is required: one of {names}"


def _enum(violation: protovalidate.Violation, request: Message) -> EnumDescriptor | None:
    """The enum of the field that breaks a rule."""
    holder: Any = request.DESCRIPTOR
    enum = None
    for element in violation.proto.field.elements if violation.proto.field else ():
        field = holder.fields_by_name[element.field_name] if holder is not None else None
        holder, enum = (field.message_type, field.enum_type) if field is not None else (None, None)
    return enum


def _path(violation: protovalidate.Violation) -> str:
    parts = []
    for element in violation.proto.field.elements if violation.proto.field else ():
        subscript = element.subscript
        if subscript is None:
            parts.append(element.field_name)
        elif subscript.field == "index":
            parts.append(f"{element.field_name}[{subscript.value}]")
        else:
            parts.append(f"{element.field_name}.{subscript.value}")
    return ".".join(parts)


def _nul_paths(message: Message, path: str) -> Iterator[str]:
    for field, value in message.ListFields():
        inner = f"{path}.{field.name}".lstrip(".")
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                yield from _nul_in(key, inner)
                yield from _nul_in(item, f"{inner}.{key}")
        elif field.is_repeated:
            for index, item in enumerate(value):
                yield from _nul_in(item, f"{inner}[{index}]")
        else:
            yield from _nul_in(value, inner)


def _nul_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Struct):
        yield from _nul_in(from_struct(value), path)
    elif isinstance(value, ListValue):
        yield from _nul_in(from_list(value), path)
    elif isinstance(value, Value):
        yield from _nul_in(from_value(value), path)
    elif isinstance(value, Message):
        yield from _nul_paths(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _nul_in(key, path)
            yield from _nul_in(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nul_in(item, f"{path}[{index}]")
    elif isinstance(value, str) and "\x00" in value:
        yield path

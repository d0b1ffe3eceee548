"""The rules that the contract puts on a request, checked before any of our code sees it."""

from collections.abc import Iterator

import protovalidate
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.structs import from_struct, from_value


def check(request: Message) -> None:
    """Raises InvalidArgument with one violation per broken rule, each naming its field."""
    found = [
        Violation(_path(violation), violation.proto.message or violation.proto.rule_id)
        for violation in protovalidate.collect_violations(request)
    ]
    # PostgreSQL stores no NUL in text. Nearly no request has the byte, so most are not walked at all.
    if b"\x00" in request.SerializeToString():
        found += [Violation(path, "must not contain the character NUL") for path in _nul_paths(request, "")]
    if found:
        raise InvalidArgument.of(found)


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

"""The rules that the contract puts on a request, checked before any of our code sees it."""

from collections.abc import Iterator

import protovalidate
from google.protobuf.message import Message

from services.chassis.errors import InvalidArgument, Violation


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
        parts.append(element.field_name + (f"[{subscript.value}]" if subscript is not None else ""))
    return ".".join(parts)


def _nul_paths(message: Message, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                yield from _nul_in(key, f"{path}[{key!r}]")
                yield from _nul_in(item, f"{path}[{key!r}]")
        elif field.is_repeated:
            for index, item in enumerate(value):
                yield from _nul_in(item, f"{path}[{index}]")
        else:
            yield from _nul_in(value, path)


def _nul_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Message):
        yield from _nul_paths(value, f"{path}.")
    elif isinstance(value, str) and "\x00" in value:
        yield path

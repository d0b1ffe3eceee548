"""What the contracts say, and the generated modules do not keep: their comments, and which packages there are."""

from collections.abc import Iterator
from importlib import resources

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Named = Iterator[tuple[tuple[int, ...], str]]
"""Elements of a file, each by the path that source info has for it and by its full name."""

# How source info addresses the parts of a file: by their field numbers in descriptor.proto.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS = 2, 3, 4
_ENUM_VALUES = _SERVICE_METHODS = 2


def shipped_comments() -> dict[str, str]:
    """The comments of the contracts that were compiled together with the stubs."""
    return comments(_shipped())


def shipped_packages() -> list[str]:
    """The packages that declare services, among those contracts."""
    return sorted({file.package for file in FileDescriptorSet.FromString(_shipped()).file if file.service})


def comments(descriptor_set: bytes) -> dict[str, str]:
    """The comments in a serialized FileDescriptorSet with source info, by the full name of what they are about."""
    return {
        name: _clean(found[path])
        for file in FileDescriptorSet.FromString(descriptor_set).file
        if (found := {tuple(at.path): at.leading_comments for at in file.source_code_info.location})
        for path, name in _named(file)
        if found.get(path)
    }


def _shipped() -> bytes:
    return (resources.files("baton") / "descriptors.binpb").read_bytes()


def _clean(comment: str) -> str:
    lines = [line.removeprefix(" ").rstrip() for line in comment.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("buf:lint:ignore")).strip()


def _named(file: FileDescriptorProto) -> Named:
    for index, message in enumerate(file.message_type):
        yield from _in_message((_FILE_MESSAGES, index), f"{file.package}.{message.name}", message)
    for index, enum in enumerate(file.enum_type):
        yield from _in_enum((_FILE_ENUMS, index), f"{file.package}.{enum.name}", enum)
    for index, service in enumerate(file.service):
        yield from _in_service((_FILE_SERVICES, index), f"{file.package}.{service.name}", service)


def _in_message(path: tuple[int, ...], name: str, message: DescriptorProto) -> Named:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _MESSAGE_FIELDS, index), f"{name}.{field.name}"
    for index, inner in enumerate(message.nested_type):
        yield from _in_message((*path, _MESSAGE_MESSAGES, index), f"{name}.{inner.name}", inner)
    for index, enum in enumerate(message.enum_type):
        yield from _in_enum((*path, _MESSAGE_ENUMS, index), f"{name}.{enum.name}", enum)


def _in_enum(path: tuple[int, ...], name: str, enum: EnumDescriptorProto) -> Named:
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, _ENUM_VALUES, index), f"{name}.{value.name}"


def _in_service(path: tuple[int, ...], name: str, service: ServiceDescriptorProto) -> Named:
    yield path, name
    for index, method in enumerate(service.method):
        yield (*path, _SERVICE_METHODS, index), f"{name}.{method.name}"

"""google.protobuf.BoolValue and its like: a scalar that may be absent. As JSON each is that scalar, or null."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor

WRAPPED: Mapping[str, FieldDescriptor] = {
    wrapper.full_name: wrapper.fields_by_name["value"]
    for wrapper in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()
}
"""The one field of each wrapper, by the full name of its type."""


def wrapper_printer(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """From a wrapper to its scalar, as `convert` makes it JSON."""
    get = attrgetter("value")
    return get if convert is None else lambda message: convert(get(message))


def wrapper_reader(read: Callable[[Any], Any]) -> Callable[[Any, object], None]:
    """Fills a wrapper with what `read` makes of a value."""

    def fill(message: Any, value: object) -> None:
        message.value = read(value)

    return fill

"""`Location`: where what a request has made can be read."""

from collections.abc import Callable, Iterable
from operator import attrgetter

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.chassis.config import ConfigurationError
from services.gateway.descriptors import Method
from services.gateway.path_template import ONE, REST, PathTemplate, parse_template
from services.gateway.transcode.query import text_fields

HEADER = "Location"
Locate = Callable[[Message], str]
"""From a response to the path of what it tells of."""

_CREATED = 201
_NAMES = frozenset({FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64})


def locator(method: Method, methods: Iterable[Method]) -> Locate | None:
    """What finds the `Location` of an answer of `method`, by its policy; None where it has none.

    Raises ConfigurationError unless one of `methods` answers a GET there, and the response has what its path needs.
    """
    declared = method.policy.location
    if not declared:
        return None
    path = parse_template(declared)
    if method.policy.success_status != _CREATED:
        raise ConfigurationError(f"{method.path} has a location, and its success_status is not {_CREATED}")
    if not _is_read(path, methods):
        raise ConfigurationError(f"{method.path} has the location {declared!r}, where nothing can be read")
    _check_fields(method, path)
    getters = [attrgetter(variable.name) for variable in path.variables]
    return lambda response: path.expand(tuple(str(get(response)) for get in getters))


def _is_read(path: PathTemplate, methods: Iterable[Method]) -> bool:
    readable = (
        parse_template(binding.template) for one in methods for binding in one.bindings if binding.verb == "GET"
    )
    return any((one.segments, one.verb) == (path.segments, path.verb) for one in readable)


def _check_fields(method: Method, path: PathTemplate) -> None:
    fields = text_fields(method.descriptor.output_type)
    for variable in path.variables:
        field = fields.get(variable.name)
        if field is None or field.is_repeated or field.cpp_type not in _NAMES:
            raise ConfigurationError(
                f"{method.path} has {{{variable.name}}} in its location, and no such text or number in its response"
            )
    filled = {index for variable in path.variables for index in range(variable.start, variable.stop)}
    if any(segment in (ONE, REST) and index not in filled for index, segment in enumerate(path.segments)):
        raise ConfigurationError(f"{method.path} has a wildcard in its location that no field fills")

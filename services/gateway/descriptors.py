"""The contracts as the gateway reads them: every method that declares an HTTP rule, from the generated modules."""

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from baton.api.v1 import annotations_pb2
from google.api import annotations_pb2 as http_annotations_pb2
from google.api import http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from services.chassis.config import ConfigurationError

HTTP_BODY = "google.api.HttpBody"
FIELD_MASK = "google.protobuf.FieldMask"
KEY_FIELD, MASK_FIELD, VERSION_FIELD = "request_id", "update_mask", "version"
KEY_HEADER, VERSION_HEADER = "Idempotency-Key", "If-Match"
"""What fills the key of a request over REST, and the version that it wants to change."""
RESUME_HEADER = "Last-Event-ID"
"""What says where a stream of events is resumed."""
_VERBS = ("get", "put", "post", "delete", "patch")
_CHANGING = ("PATCH", "PUT")


@dataclass(frozen=True)
class Binding:
    """One HTTP rule of a method."""

    verb: str
    template: str
    body: str
    """The request field that the body fills, `*` for the request itself, empty when there is no body."""
    response_body: str
    """The response field that is answered, empty for the response itself."""


@dataclass(frozen=True)
class Method:
    """One RPC that REST can call."""

    package: str
    descriptor: MethodDescriptor
    bindings: tuple[Binding, ...]
    policy: annotations_pb2.MethodPolicy

    @property
    def path(self) -> str:
        """The method as gRPC addresses it: `/package.Service/Method`."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def streams_bytes(self) -> bool:
        return self.descriptor.server_streaming and not self.streams_events

    @property
    def streams_events(self) -> bool:
        """Whether its messages are server-sent events."""
        return self.policy.HasField("event_stream")

    @property
    def is_open(self) -> bool:
        """Whether it needs no token, because the request itself carries the credential to be checked."""
        return self.policy.access == annotations_pb2.ACCESS_CREDENTIAL_IN_REQUEST

    @property
    def takes_key(self) -> bool:
        """Whether an `Idempotency-Key` means anything to it."""
        return self.policy.mutates and KEY_FIELD in self.descriptor.input_type.fields_by_name

    @property
    def takes_version(self) -> bool:
        """Whether an `If-Match` means anything to it."""
        return self.policy.versioned and VERSION_FIELD in self.descriptor.input_type.fields_by_name

    def takes_mask(self, binding: Binding) -> bool:
        """Whether it is told which fields are given, so that one given as null can be told from one not given."""
        fields = self.descriptor.input_type.fields_by_name
        mask, body = fields.get(MASK_FIELD), fields.get(binding.body)
        is_mask = mask is not None and mask.message_type is not None and mask.message_type.full_name == FIELD_MASK
        gives_fields = binding.body == "*" or (body is not None and _has_names(body))
        return is_mask and binding.verb in _CHANGING and gives_fields

    def new_request(self) -> Message:
        return GetMessageClass(self.descriptor.input_type)()

    def parse_response(self, data: bytes) -> Message:
        return GetMessageClass(self.descriptor.output_type).FromString(data)


def _has_names(field: FieldDescriptor) -> bool:
    """Whether a field is given as an object with the names of a contract's fields."""
    message = field.message_type
    return message is not None and not field.is_repeated and not message.full_name.startswith("google.")


def load_methods(packages: Iterable[str]) -> list[Method]:
    """The REST methods of proto packages whose stubs can be imported by the same name.

    Raises ConfigurationError for a package that has none, and for a rule that cannot be served.
    """
    return [method for package in packages for method in _package_methods(package)]


def _package_methods(package: str) -> list[Method]:
    methods = [
        Method(package, descriptor, tuple(_bindings(rule)), descriptor.GetOptions().Extensions[annotations_pb2.policy])
        for module in _stub_modules(package)
        for service in module.DESCRIPTOR.services_by_name.values()
        for descriptor in service.methods
        if (rule := descriptor.GetOptions().Extensions[http_annotations_pb2.http]).WhichOneof("pattern")
    ]
    for method in methods:
        _check(method)
    return methods


def _stub_modules(package: str) -> list[ModuleType]:
    try:
        found = import_module(package)
    except ModuleNotFoundError:
        raise ConfigurationError(f"there are no stubs for package {package!r}: build them with `make protos`") from None
    names = [name for _, name, _ in pkgutil.iter_modules(found.__path__) if name.endswith("_pb2")]
    return [import_module(f"{package}.{name}") for name in sorted(names)]


def _bindings(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    verb = rule.WhichOneof("pattern")
    if verb not in _VERBS:
        raise ConfigurationError(f"an HTTP rule uses {verb!r}: use one of {', '.join(_VERBS)}")
    yield Binding(verb.upper(), getattr(rule, verb), rule.body, rule.response_body)
    for additional in rule.additional_bindings:
        yield from _bindings(additional)


def _check(method: Method) -> None:
    descriptor = method.descriptor
    if descriptor.client_streaming:
        raise ConfigurationError(f"{method.path} streams requests, which REST cannot")
    if method.streams_bytes and descriptor.output_type.full_name != HTTP_BODY:
        raise ConfigurationError(
            f"{method.path} streams messages: only streams of {HTTP_BODY} can be served, and events (`event_stream`)"
        )
    if method.streams_events:
        _check_events(method)
    for binding in method.bindings:
        if binding.verb == "GET" and binding.body:
            raise ConfigurationError(f"{method.path} has a body in its HTTP rule, and a GET has no body")
        _check_field(method, binding.body.removeprefix("*"), descriptor.input_type.fields_by_name)
        _check_field(method, binding.response_body, descriptor.output_type.fields_by_name)
        if method.policy.versioned:
            _check_versioned(method, binding)


def _check_events(method: Method) -> None:
    if not method.descriptor.server_streaming:
        raise ConfigurationError(f"{method.path} declares `event_stream`, and does not stream")
    declared = method.policy.event_stream
    for name, message in (
        (declared.id_field, method.descriptor.output_type),
        (declared.resume_field, method.descriptor.input_type),
    ):
        if name not in message.fields_by_name:
            raise ConfigurationError(
                f"{method.path} names the field {name!r} in its `event_stream`, and {message.name} has no such field"
            )


def _check_field(method: Method, name: str, fields: Mapping[str, object]) -> None:
    if name and name not in fields:
        raise ConfigurationError(f"{method.path} names the field {name!r} in its HTTP rule, and has no such field")


def _check_versioned(method: Method, binding: Binding) -> None:
    output = method.descriptor.output_type
    answered = output.fields_by_name[binding.response_body].message_type if binding.response_body else output
    if answered is None or VERSION_FIELD not in answered.fields_by_name:
        raise ConfigurationError(f"{method.path} is versioned, and what it answers has no {VERSION_FIELD!r}")

"""A tool's arguments onto the request message of its RPC."""

from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import Any

from google.protobuf.message import Message

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, Violation
from services.gateway.descriptors import KEY_FIELD, MASK_FIELD, Binding, Method
from services.gateway.path_template import parameter_names
from services.gateway.request_form import checked_key
from services.gateway.transcode.faults import Fault, Faults
from services.gateway.transcode.parser import Parsers

KEY_ARGUMENT = "idempotency_key"
"""What fills the key of a request, beside the arguments that are its fields."""


class ArgumentForm:
    """The fields of a request, wherever REST takes them from; the key and the mask are not given as fields.

    Where `binding` changes a resource whose request has an `update_mask`, the names that are given fill it.
    """

    def __init__(self, method: Method, binding: Binding, parsers: Parsers) -> None:
        """Raises ConfigurationError for a request with a field that the key's name hides."""
        descriptor = method.descriptor.input_type
        if KEY_ARGUMENT in descriptor.fields_by_name:
            raise ConfigurationError(f"{method.path} has a field {KEY_ARGUMENT!r}, which tools have for its key")
        self.elsewhere = {KEY_FIELD: f"is given as {KEY_ARGUMENT}"} if KEY_FIELD in descriptor.fields_by_name else {}
        self._is_masked = method.takes_mask(binding)
        if self._is_masked:
            self.elsewhere[MASK_FIELD] = "is given by the names of the arguments"
        self._method, self._body = method, binding.body
        self._in_path = parameter_names(binding.template)
        self._fill = parsers.of_request(descriptor, self.elsewhere)

    def read(self, arguments: Mapping[str, Any]) -> Message:
        """The request message. Raises InvalidArgument with a violation for every fault found."""
        message, given = self._method.new_request(), dict(arguments)
        key = given.pop(KEY_ARGUMENT, None) if self._method.takes_key else None
        faults = self._fill_faults(message, given)
        faults += self._missing(message, {place for place, _ in faults})
        if faults:
            raise InvalidArgument.of(Violation(place, description) for place, description in faults)
        if self._is_masked:
            getattr(message, MASK_FIELD).paths.extend(self._names(given))
        if self._method.takes_key:
            setattr(message, KEY_FIELD, checked_key(key, KEY_ARGUMENT))
        return message

    def _fill_faults(self, message: Message, given: Mapping[str, Any]) -> list[Fault]:
        try:
            self._fill(message, given, 0)
        except Faults as wrong:
            return wrong.found
        return []

    def _missing(self, message: Message, faulty: Collection[str]) -> list[Fault]:
        """What REST has in its path, which cannot lack it."""
        return [
            (name, "must be given")
            for name in self._in_path
            if name not in faulty and attrgetter(name)(message) in ("", 0)
        ]

    def _names(self, given: Mapping[str, Any]) -> list[str]:
        """The fields that are given, of what the body of REST's request would be."""
        body = given if self._body == "*" else given.get(self._body) or {}
        in_path = {name.removeprefix(f"{self._body}.") for name in self._in_path}
        return sorted(body.keys() - in_path)

"""An HTTP request onto the request message of an RPC, as one HTTP rule says."""

import re
from collections.abc import Callable, Collection, Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.requests import Request

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument, Violation
from services.gateway.body import read_json, refuse_body
from services.gateway.descriptors import (
    KEY_FIELD,
    KEY_HEADER,
    MASK_FIELD,
    RESUME_HEADER,
    VERSION_FIELD,
    VERSION_HEADER,
    Binding,
    Method,
)
from services.gateway.transcode.faults import Fault, Faults
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.query import PutTexts, fill_from_query, text_fields, text_putter

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# What weakens tags on the way, such as compression, leaves a version what it is.
_VERSION = re.compile(r'(?:W/)?"([1-9]\d{0,17})"', re.ASCII)
_ANY_VERSION = "*"
_BY_PATH, _BY_BODY, _BY_KEY = "is given by the path", "is given by the body", f"is given by the {KEY_HEADER} header"
_BY_NAMES = "is given by the names in the body"

FillBody = Callable[[Message, object], None]
"""Fills a request from its body's JSON. Raises Faults."""


class RequestForm:
    """Where each field of a request comes from: the path, else the body, else the query; the key from its header.

    Of a stream of events that is resumed, `Last-Event-ID` says where, whatever else does.
    The version that is to be changed may be in the body or in its header.

    A PATCH or PUT whose request has an `update_mask` fills it with the names in the body's object, so that null clears.
    """

    def __init__(self, method: Method, binding: Binding, parameters: tuple[str, ...], parsers: Parsers) -> None:
        descriptor = method.descriptor.input_type
        self._method = method
        self._from_path = {name: _path_putter(method, name) for name in parameters}
        from_query = query_fields(method, binding, parameters)
        self._from_query = {name: text_putter(name, field) for name, field in from_query.items()}
        elsewhere = dict.fromkeys(parameters, _BY_PATH)
        if KEY_FIELD in descriptor.fields_by_name:
            elsewhere[KEY_FIELD] = _BY_KEY
        if method.takes_mask(binding):
            elsewhere[MASK_FIELD] = _BY_NAMES
        self._refused = dict.fromkeys(text_fields(descriptor).keys() - from_query.keys(), _BY_BODY) | elsewhere
        fill_body = _body_filler(descriptor, binding.body, elsewhere, parsers)
        if fill_body is not None and method.takes_mask(binding):
            fill_body = _masked(fill_body, {name.removeprefix(f"{binding.body}.") for name in parameters})
        self._fill_body = fill_body
        self._body_place = _body_place(binding.body)
        self._resume = _resume_putter(method) if method.streams_events else None

    async def read(self, request: Request, values: Mapping[str, str]) -> Message:
        """The request message. Raises InvalidArgument with a violation for every fault found."""
        message = self._method.new_request()
        faults: list[Fault] = []
        if self._fill_body is None:
            await refuse_body(request)
        else:
            faults += _faults(self._fill_body, message, await read_json(request, self._body_place))
        if query := request.scope["query_string"]:
            faults += _faults(fill_from_query, message, query, self._from_query, self._refused)
        for name, text in values.items():
            faults += _faults(_fill_from_text, self._from_path[name], name, message, text)
        if self._resume is not None and (event_id := request.headers.get(RESUME_HEADER)):
            faults += _faults(_fill_from_text, self._resume, RESUME_HEADER, message, event_id)
        if faults:
            raise InvalidArgument.of(Violation(place, description) for place, description in faults)
        if self._method.takes_key:
            setattr(message, KEY_FIELD, checked_key(request.headers.get(KEY_HEADER), KEY_HEADER))
        if self._method.takes_version:
            _fill_version(message, request.headers.get(VERSION_HEADER, _ANY_VERSION))
        return message


def _fill_from_text(put: PutTexts, place: str, message: Message, text: str) -> None:
    try:
        put(message, [text])
    except Faults as wrong:
        raise Faults(list(wrong.at(place))) from None


def query_fields(method: Method, binding: Binding, parameters: Collection[str]) -> dict[str, FieldDescriptor]:
    """The fields that a query may give, by dotted path: those that nothing else gives."""
    elsewhere = {KEY_FIELD, *parameters, *((MASK_FIELD,) if method.takes_mask(binding) else ())}
    return {
        name: field
        for name, field in text_fields(method.descriptor.input_type).items()
        if name not in elsewhere and binding.body not in ("*", name.partition(".")[0])
    }


def _path_putter(method: Method, name: str) -> PutTexts:
    field = text_fields(method.descriptor.input_type).get(name)
    if field is None or field.is_repeated:
        raise ConfigurationError(
            f"{method.path} has {{{name}}} in a path template, and no such field that text can fill"
        )
    return text_putter(name, field)


def _resume_putter(method: Method) -> PutTexts:
    name = method.policy.event_stream.resume_field
    return text_putter(name, method.descriptor.input_type.fields_by_name[name])


def _body_filler(descriptor: Descriptor, body: str, elsewhere: Mapping[str, str], parsers: Parsers) -> FillBody | None:
    """What fills a request from its body, or None when it takes none."""
    if not body:
        return None
    if body == "*":
        refused = {name: why for name, why in elsewhere.items() if name in descriptor.fields_by_name}
        fill = parsers.of_request(descriptor, refused)
    else:
        fill = parsers.of_field(descriptor.fields_by_name[body])
    place = _body_place(body)

    def fill_body(message: Message, value: object) -> None:
        try:
            fill(message, value, 0)
        except Faults as wrong:
            raise Faults([(inner or "body", description) for inner, description in wrong.at(place)]) from None

    return fill_body


def _body_place(body: str) -> str:
    """The field that a rule's body fills; empty for the whole request."""
    return body.removeprefix("*")


def _masked(fill: FillBody, given_by_path: Collection[str]) -> FillBody:
    def fill_and_mask(message: Message, value: object) -> None:
        fill(message, value)
        # null for the whole body is like none. Sorted, because the order of names in an object means nothing.
        names = sorted(value.keys() - given_by_path) if isinstance(value, dict) else []
        getattr(message, MASK_FIELD).paths.extend(names)

    return fill_and_mask


def _faults(step: Callable[..., None], *arguments: object) -> list[Fault]:
    try:
        step(*arguments)
    except Faults as wrong:
        return wrong.found
    return []


def checked_key(key: object, name: str) -> str:
    """The key of a request, empty for none; its caller knows it by `name`. Raises `IDEMPOTENCY_KEY_INVALID`."""
    if key is None:
        return ""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        description = "must be 1 to 255 visible ASCII characters"
        raise InvalidArgument(
            f"{name}: {description}",
            reason="IDEMPOTENCY_KEY_INVALID",
            violations=[Violation(name, description)],
        )
    return key


def _fill_version(message: Message, tag: str) -> None:
    if tag == _ANY_VERSION:
        return
    match = _VERSION.fullmatch(tag)
    if match is None:
        raise _version_fault('must be one ETag as it was answered, such as "3", or *')
    version = int(match[1])
    if message.HasField(VERSION_FIELD) and getattr(message, VERSION_FIELD) != version:
        raise _version_fault(f"is not the {VERSION_FIELD} in the body: leave one of them out")
    setattr(message, VERSION_FIELD, version)


def _version_fault(description: str) -> InvalidArgument:
    return InvalidArgument(
        f"{VERSION_HEADER}: {description}",
        reason="IF_MATCH_INVALID",
        violations=[Violation(VERSION_HEADER, description)],
    )

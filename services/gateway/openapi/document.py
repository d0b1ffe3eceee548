"""The OpenAPI document."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import PurePath
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.gateway.body import MAX_BODY_BYTES
from services.gateway.descriptors import (
    KEY_FIELD,
    KEY_HEADER,
    MASK_FIELD,
    RESUME_HEADER,
    VERSION_HEADER,
    Binding,
    Method,
)
from services.gateway.event_stream import MEDIA_TYPE as EVENTS_MEDIA_TYPE
from services.gateway.line_stream import MEDIA_TYPE as LINES_MEDIA_TYPE
from services.gateway.location import HEADER as LOCATION_HEADER
from services.gateway.openapi import events, examples
from services.gateway.openapi.failures import PROBLEM, failures, responses
from services.gateway.openapi.paths import PathParameter, openapi_path
from services.gateway.openapi.rules import Schema, is_required, keywords, rules_of
from services.gateway.openapi.schemas import Schemas
from services.gateway.path_template import REST, parameter_names
from services.gateway.request_form import query_fields
from services.gateway.transcode.query import text_fields

_KEY_PARAMETER: Schema = {
    "name": KEY_HEADER,
    "in": "header",
    "description": "Makes the request safe to repeat: one key and request have one effect and one answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

_RESUMES = "The id of the last event that was read: the stream goes on behind it. Browsers send it themselves."
_VERSION_PARAMETER: Schema = {
    "name": VERSION_HEADER,
    "in": "header",
    "description": "Only change the version that has this `ETag`: otherwise nothing changes, and the answer is 409.",
    "schema": {"type": "string", "pattern": r'^(\*|(W/)?"[1-9][0-9]{0,17}")$', "examples": ['"3"']},
}
# Of what is downloaded, by the end of its name: what a machine calls it is its own affair.
_MEDIA_TYPES = {".csv": "text/csv", ".ndjson": LINES_MEDIA_TYPE}
_ETAG: Schema = {"description": "The version that is answered.", "required": True, "schema": {"type": "string"}}
_REPLAYED: Schema = {
    "description": "Given where this is the answer to an earlier request with the same key.",
    "schema": {"type": "string", "const": "true"},
}
_REQUEST_ID: Schema = {
    "description": "The id of the request: the one that it bore, or else a new one.",
    "required": True,
    "schema": {"type": "string"},
}
_EVERY_ANSWER: Schema = {"X-Request-ID": {"$ref": "#/components/headers/RequestID"}}
_BEARER: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token, which names the caller and holds scopes. What an operation needs is its `x-baton-scope`.",
}
_LOCATION: Schema = {
    "description": "Where what was made can be read.",
    "required": True,
    "schema": {"type": "string", "format": "uri-reference"},
}


def describe(methods: Iterable[Method], comments: Mapping[str, str], version: str) -> dict[str, Any]:
    """The document of all `methods`, as what JSON can hold."""
    schemas = Schemas(comments)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    for method in methods:
        service = method.descriptor.containing_service
        tags[service.name] = schemas.comment(service.full_name)
        for number, binding in enumerate(method.bindings):
            operation = _operation(method, binding, number, schemas)
            paths.setdefault(openapi_path(binding.template)[0], {})[binding.verb.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Baton API", "version": version, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{"bearerAuth": []}],
        "tags": [{"name": name, "description": text} for name, text in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(schemas.components.items())), "Problem": PROBLEM},
            "responses": responses(_EVERY_ANSWER),
            "headers": {"RequestID": _REQUEST_ID},
            "parameters": {"IdempotencyKey": _KEY_PARAMETER, "IfMatch": _VERSION_PARAMETER},
            "securitySchemes": {"bearerAuth": _BEARER},
        },
    }


_INTRODUCTION = f"""\
Send `Authorization: Bearer <token>`. Bodies are JSON of at most {MAX_BODY_BYTES} bytes. Times are RFC 3339, answered \
in UTC with microseconds. A failure is answered as a problem document (RFC 9457). Every answer has `X-Request-ID`."""


def _operation(method: Method, binding: Binding, number: int, schemas: Schemas) -> Schema:
    service, comment = method.descriptor.containing_service, schemas.comment(method.descriptor.full_name)
    scope = method.policy.scope
    operation: Schema = {
        "operationId": f"{service.name}_{method.descriptor.name}" + (f"_{number + 1}" if number else ""),
        "tags": [service.name],
        "summary": comment.partition(".")[0].replace("\n", " "),
        "description": "\n\n".join(part for part in (comment, f"Scope: `{scope}`." if scope else "") if part),
        "parameters": _parameters(method, binding, schemas),
        "responses": {
            str(method.policy.success_status or 200): _success(method, binding, schemas) | _headers(method),
            **failures(method, binding, comment),
        },
    }
    if scope:
        operation["x-baton-scope"] = scope
    if method.is_open:
        operation["security"] = []
    if binding.body:
        operation["requestBody"] = _body(method, binding, schemas)
    return operation


def _parameters(method: Method, binding: Binding, schemas: Schemas) -> list[Schema]:
    names = parameter_names(binding.template)
    texts = text_fields(method.descriptor.input_type)
    found = [_path_parameter(one, texts, schemas) for one in openapi_path(binding.template)[1]]
    for name, field in query_fields(method, binding, names).items():
        found.append(_parameter(name, "query", field, is_required(field), schemas))
    if method.takes_key:
        found.append(_key_parameter(method.descriptor.input_type.fields_by_name[KEY_FIELD]))
    if method.streams_events:
        found.append(_resume_parameter(method, schemas))
    if method.takes_version:
        found.append({"$ref": "#/components/parameters/IfMatch"})
    return found


def _resume_parameter(method: Method, schemas: Schemas) -> Schema:
    field = method.descriptor.input_type.fields_by_name[method.policy.event_stream.resume_field]
    return _parameter(RESUME_HEADER, "header", field, False, schemas) | {"description": _RESUMES}


def _key_parameter(field: FieldDescriptor) -> Schema:
    """The key: one's own business, unless the contract insists on it."""
    if not is_required(field):
        return {"$ref": "#/components/parameters/IdempotencyKey"}
    said = keywords(rules_of(field))
    # A format says more than which characters a key may have.
    schema = {"type": "string"} | said if "format" in said else _KEY_PARAMETER["schema"] | said
    return _KEY_PARAMETER | {"required": True, "schema": schema, "example": examples.question_value(field)}


def _parameter(name: str, place: str, field: FieldDescriptor, required: bool, schemas: Schemas) -> Schema:
    schema = schemas.question(field)
    description = schema.pop("description", "")
    example = {"example": examples.question_value(field)} if required else {}
    return {"name": name, "in": place, "required": required, "description": description, "schema": schema} | example


def _path_parameter(parameter: PathParameter, texts: Mapping[str, FieldDescriptor], schemas: Schemas) -> Schema:
    variable = parameter.variable
    if variable is not None and variable.is_whole:
        found = _parameter(parameter.name, "path", texts[variable.name], True, schemas)
    else:
        # The rules of a field hold for all of its value, of which this is a part.
        found = {"name": parameter.name, "in": "path", "required": True, "schema": {"type": "string"}}
        found["example"] = "one"
        found["description"] = f"In `{variable.name}`, `{'/'.join(variable.segments)}`." if variable else "Anything."
    if parameter.wildcard == REST:
        found["description"] = f"{found['description']} It may contain slashes.".lstrip()
    return found


def _body(method: Method, binding: Binding, schemas: Schemas) -> Schema:
    descriptor = method.descriptor.input_type
    clears = method.takes_mask(binding)
    if binding.body == "*":
        without = {KEY_FIELD, *parameter_names(binding.template), *((MASK_FIELD,) if clears else ())}
        schema = schemas.asked_object(descriptor, without, nullable=clears)
        example = examples.question(descriptor, without)
    else:
        field = descriptor.fields_by_name[binding.body]
        schema = schemas.changed(field) if clears else schemas.question(field)
        example = examples.question_value(field)
    # No body is like an empty object, which other types do not take.
    required = bool(schema.get("required")) or schema.get("type", "object") != "object"
    return {"required": required, "content": _content("application/json", schema, example)}


def _success(method: Method, binding: Binding, schemas: Schemas) -> Schema:
    output, phrase = method.descriptor.output_type, HTTPStatus(method.policy.success_status or 200).phrase
    if method.streams_events:
        return {"description": events.DESCRIPTION, "content": _messages(output, schemas)}
    if method.streams_bytes:
        media_type = _MEDIA_TYPES.get(PurePath(method.policy.download_filename).suffix, "application/octet-stream")
        content = _content(media_type, {"type": "string"}, method.policy.download_example)
    elif binding.response_body:
        content = _content("application/json", *_answered_field(output.fields_by_name[binding.response_body], schemas))
    else:
        content = _content("application/json", schemas.answered_message(output), examples.answer(output))
    return {"description": phrase, "content": content}


def _messages(descriptor: Descriptor, schemas: Schemas) -> Schema:
    schema, example = schemas.answered_message(descriptor), examples.answer(descriptor)
    as_events = _content(EVENTS_MEDIA_TYPE, events.event(schema), events.example(example))
    return as_events | _content(LINES_MEDIA_TYPE, schema, example)


def _answered_field(field: FieldDescriptor, schemas: Schemas) -> tuple[Schema, Any]:
    # A method that answers one of its fields sets it, unless that is `optional`, and null where it is not set.
    may_be_null = field.is_repeated or field.containing_oneof is not None
    message = None if may_be_null else field.message_type
    schema = schemas.answered_message(message) if message is not None else schemas.answer(field)
    return schema, examples.answer_value(field)


def _headers(method: Method) -> Schema:
    tag = {"ETag": _ETAG} if method.policy.versioned else {}
    replayed = {"Idempotent-Replayed": _REPLAYED} if method.takes_key else {}
    location = {LOCATION_HEADER: _LOCATION} if method.policy.location else {}
    return {"headers": _EVERY_ANSWER | tag | replayed | location}


def _content(media_type: str, schema: Schema, example: Any) -> Schema:
    return {media_type: {"schema": schema, "example": example}}

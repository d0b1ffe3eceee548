"""Messages and their fields as JSON Schema.

What is answered and what is asked for differ: an answer always has every field, null where nothing is set; a
request may leave fields out, and must keep the contract's rules. So a message used both ways has two schemas.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.chassis import enums
from services.gateway.openapi.rules import Schema, allowed_numbers, is_required, keywords, rules_of, rules_of_values
from services.gateway.transcode.printer import map_entry
from services.gateway.transcode.wrappers import WRAPPED

_INT32: Schema = {"type": "integer", "format": "int32"}
_INT64: Schema = {"type": "integer", "format": "int64"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_FIXED64: {"type": "integer", "minimum": 0},
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
    "google.protobuf.FieldMask": {"type": "string", "description": "Names of fields, separated by commas."},
    **{name: _SCALARS[field.type] for name, field in WRAPPED.items()},
}

_Type = Descriptor | EnumDescriptor
_Value = Callable[[FieldDescriptor, FieldDescriptor], Schema]
"""The schema of one value: of a field, and the rules' holder, which differ for the values of a map."""


class Schemas:
    """Builds schemas and keeps those with a name as the document's components, which are at `place` in it."""

    def __init__(self, comments: Mapping[str, str], place: str = "#/components/schemas/") -> None:
        self._place = place
        self.components: dict[str, Schema] = {}
        self._comments = comments
        self._names: dict[tuple[str, str], str] = {}

    def answer(self, field: FieldDescriptor) -> Schema:
        """A field of an answer."""
        schema = self._container(field, self._answer_value)
        return self._described(field.full_name, _nullable(schema) if _may_be_null(field) else schema)

    def answered_message(self, descriptor: Descriptor) -> Schema:
        """A message in an answer: every field is there."""
        if descriptor.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[descriptor.full_name]
        return self._component(descriptor, "", self._answered_object)

    def question(self, field: FieldDescriptor) -> Schema:
        """A field of a request, with its rules."""
        return self._described(
            field.full_name, self._container(field, self._question_value) | keywords(rules_of(field))
        )

    def asked_object(self, descriptor: Descriptor, without: Collection[str] = (), *, nullable: bool = False) -> Schema:
        """A message in a request: only what must be there is required, and nothing unknown may be.

        null stands for what is not given. With `nullable` it has a meaning for all fields: it clears them.
        """
        fields = [field for field in descriptor.fields if field.name not in without]
        required = [field.name for field in fields if is_required(field)]
        properties = {field.name: self.question(field) for field in fields}
        schema: Schema = {
            "type": "object",
            "properties": {
                name: one if name in required and not nullable else _nullable(one) for name, one in properties.items()
            },
            "additionalProperties": False,
        }
        if required:
            schema["required"] = required
        groups = [[field.name for field in fields if field.containing_oneof is one] for one in descriptor.oneofs]
        if choices := [_one_at_most(names) for names in groups if len(names) > 1]:
            schema["allOf"] = choices
        return self._described(descriptor.full_name, schema)

    def changed(self, field: FieldDescriptor) -> Schema:
        """A field of a request that changes what is given of its message, where null clears."""
        assert field.message_type is not None, "else nothing of it could be named"
        return self.asked_object(field.message_type, nullable=True)

    def comment(self, full_name: str) -> str:
        return self._comments.get(full_name, "")

    def _container(self, field: FieldDescriptor, value: _Value) -> Schema:
        if entry := map_entry(field):
            return {"type": "object", "additionalProperties": value(entry["value"], field)}
        if field.is_repeated:
            return {"type": "array", "items": value(field, field)}
        return dict(value(field, field))

    def _answer_value(self, field: FieldDescriptor, _: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.answered_message(field.message_type)
        if field.enum_type is not None:
            return self._enum_component(field.enum_type)
        return _SCALARS[field.type]

    def _question_value(self, field: FieldDescriptor, holder: FieldDescriptor) -> Schema:
        rules = rules_of_values(holder)
        if field.message_type is not None:
            if field.message_type.full_name in _WELL_KNOWN:
                return _WELL_KNOWN[field.message_type.full_name] | keywords(rules)
            return self._component(field.message_type, "Input", self.asked_object)
        if field.enum_type is not None:
            offered = enums.choices(field.enum_type)
            names = enums.short_names(field.enum_type)
            left = [names[number] for number in allowed_numbers(rules, list(names)) if names[number] in offered]
            return {"type": "string", "enum": left}
        return _SCALARS[field.type] | keywords(rules)

    def _answered_object(self, descriptor: Descriptor) -> Schema:
        properties = {field.name: self.answer(field) for field in descriptor.fields}
        schema: Schema = {"type": "object", "properties": properties, "required": list(properties)}
        return self._described(descriptor.full_name, schema)

    def _enum_component(self, enum: EnumDescriptor) -> Schema:
        return self._component(enum, "", self._enum)

    def _enum(self, enum: EnumDescriptor) -> Schema:
        names = enums.short_names(enum)
        # Of two names for one value the first is the one that is answered.
        first = {value.number: value.name for value in reversed(enum.values)}
        meanings = [
            f"- `{name}`: {self.comment(f'{enum.full_name}.{first[number]}')}" for number, name in names.items()
        ]
        description = "\n".join([self.comment(enum.full_name), "", *meanings]).strip()
        return {"type": "string", "enum": list(names.values()), "description": description}

    def _component(self, descriptor: _Type, suffix: str, build: Callable[[Any], Schema]) -> Schema:
        key = (descriptor.full_name, suffix)
        if key not in self._names:
            short = descriptor.name + suffix
            self._names[key] = name = short if short not in self.components else descriptor.full_name + suffix
            # Its place is taken before it is built, because it may refer to itself.
            self.components[name] = {}
            self.components[name].update(build(descriptor))
        return {"$ref": f"{self._place}{self._names[key]}"}

    def _described(self, full_name: str, schema: Schema) -> Schema:
        comment = self.comment(full_name)
        return schema | {"description": comment} if comment else schema


def _may_be_null(field: FieldDescriptor) -> bool:
    return field.has_presence and not field.is_repeated


def _nullable(schema: Schema) -> Schema:
    if "$ref" in schema:
        others = {name: value for name, value in schema.items() if name != "$ref"}
        return {"anyOf": [{"$ref": schema["$ref"]}, {"type": "null"}]} | others
    if "type" not in schema:
        return schema
    # A list of choices leaves out what is not in it, whatever the type.
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | choices | {"type": [schema["type"], "null"]}


def _one_at_most(names: Iterable[str]) -> Schema:
    given = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return {"oneOf": [*given, {"not": {"anyOf": given}}]}

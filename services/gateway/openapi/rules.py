"""protovalidate's rules as JSON Schema keywords."""

import re
from collections.abc import Mapping
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

from services.gateway.transcode.printer import map_entry

Schema = dict[str, Any]

_FORMATS = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_BOUNDS = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
_NOT_NUMBERS = frozenset({"string", "bytes", "enum", "repeated", "map", "bool", "any", "timestamp", "duration", None})


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules that the contract puts on a field."""
    return field.GetOptions().Extensions[validate_pb2.field]


def rules_of_values(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules on each value of a field: of a list its items, of a map its values, else the field itself."""
    rules = rules_of(field)
    if map_entry(field):
        return rules.map.values
    return rules.repeated.items if field.is_repeated else rules


_ZERO: Mapping[str, Any] = {"string": "", "repeated": [], "map": {}}


def keywords(rules: validate_pb2.FieldRules) -> Schema:
    """What JSON Schema can say of the rules for one value."""
    found = _keywords(rules)
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE and _refuses_default(rules):
        return {"anyOf": [found, {"const": _ZERO.get(rules.WhichOneof("type") or "", 0)}]}
    return found


def _keywords(rules: validate_pb2.FieldRules) -> Schema:
    kind = rules.WhichOneof("type")
    if kind == "string":
        return _string_keywords(rules.string)
    if kind == "repeated":
        return _present(rules.repeated, {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"})
    if kind == "map":
        return _present(rules.map, {"min_pairs": "minProperties", "max_pairs": "maxProperties"})
    if kind in _NOT_NUMBERS:
        return {}
    return _present(getattr(rules, str(kind)), _BOUNDS)


def allowed_numbers(rules: validate_pb2.FieldRules, numbers: list[int]) -> list[int]:
    """The enum values that the rules leave."""
    only, never = getattr(rules.enum, "in"), rules.enum.not_in
    return [number for number in numbers if number not in never and (not only or number in only)]


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused: by `required`, or because its default breaks its rules."""
    rules = rules_of(field)
    if rules.required:
        return True
    skips_default = rules.ignore in (validate_pb2.IGNORE_IF_ZERO_VALUE, validate_pb2.IGNORE_ALWAYS)
    return not field.has_presence and not skips_default and _refuses_default(rules)


def _refuses_default(rules: validate_pb2.FieldRules) -> bool:
    kind = rules.WhichOneof("type")
    found = _keywords(rules)
    if kind == "string":
        pattern = found.get("pattern")
        return "format" in found or found.get("minLength", 0) > 0 or bool(pattern and not re.search(pattern, ""))
    if kind == "enum":
        return not allowed_numbers(rules, [0])
    least = max(found.get(keyword, 0) for keyword in ("minItems", "minProperties", "minimum"))
    return bool(least > 0 or found.get("exclusiveMinimum", -1) >= 0)


def _string_keywords(rules: validate_pb2.StringRules) -> Schema:
    found = _present(rules, {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"})
    if rules.HasField("len"):
        found |= {"minLength": rules.len, "maxLength": rules.len}
    if allowed := list(getattr(rules, "in")):
        found["enum"] = allowed
    if name := _FORMATS.get(rules.WhichOneof("well_known") or ""):
        found["format"] = name
    return found


def _present(rules: Any, names: dict[str, str]) -> Schema:
    return {keyword: getattr(rules, name) for name, keyword in names.items() if rules.HasField(name)}

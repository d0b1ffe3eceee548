"""What clients are told of a tool."""

from collections.abc import Collection, Mapping

import mcp_types

from services.gateway.descriptors import KEY_FIELD, Binding, Method
from services.gateway.mcp.arguments import KEY_ARGUMENT
from services.gateway.openapi.rules import Schema, is_required
from services.gateway.openapi.schemas import Schemas
from services.gateway.path_template import parameter_names

_KEY = "Makes the call safe to repeat: one key and arguments have one effect and one answer."
_KEY_TEXT: Schema = {"minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}


def describe(
    name: str, method: Method, binding: Binding, elsewhere: Collection[str], comments: Mapping[str, str]
) -> mcp_types.Tool:
    """The tool `name`, whose request's fields are its arguments but for those given `elsewhere`."""
    policy, comment = method.policy, comments.get(method.descriptor.full_name, "")
    return mcp_types.Tool(
        name=name,
        description="\n\n".join(filter(None, [comment, f"Scope: `{policy.scope}`." if policy.scope else ""])),
        input_schema=_input_schema(method, binding, elsewhere, Schemas(comments, "#/$defs/")),
        output_schema=_output_schema(method, binding, Schemas(comments, "#/$defs/")),
        annotations=mcp_types.ToolAnnotations(read_only_hint=not policy.mutates),
    )


def _input_schema(method: Method, binding: Binding, elsewhere: Collection[str], schemas: Schemas) -> Schema:
    descriptor = method.descriptor.input_type
    clears = method.takes_mask(binding)
    schema = schemas.asked_object(descriptor, elsewhere, nullable=clears and binding.body == "*")
    if clears and binding.body != "*":
        schema["properties"][binding.body] = schemas.changed(descriptor.fields_by_name[binding.body])
    # What REST has in a path cannot be left out, whatever the rules say.
    in_path = [name for name in parameter_names(binding.template) if name in descriptor.fields_by_name]
    schema["properties"] |= {name: schemas.question(descriptor.fields_by_name[name]) for name in in_path}
    required = [*schema.get("required", ()), *in_path]
    if method.takes_key:
        field = descriptor.fields_by_name[KEY_FIELD]
        schema["properties"][KEY_ARGUMENT] = _KEY_TEXT | schemas.question(field) | {"description": _KEY}
        required += [KEY_ARGUMENT] if is_required(field) else []
    if required:
        schema["required"] = list(dict.fromkeys(required))
    return _with_definitions(schema, schemas)


def _output_schema(method: Method, binding: Binding, schemas: Schemas) -> Schema:
    output = method.descriptor.output_type
    answered = output.fields_by_name[binding.response_body].message_type if binding.response_body else output
    assert answered is not None, "checked when the catalogue was made"
    # Clients want to read at once that it is an object.
    return _with_definitions({"type": "object"} | schemas.answered_message(answered), schemas)


def _with_definitions(schema: Schema, schemas: Schemas) -> Schema:
    return schema | {"$defs": schemas.components} if schemas.components else schema

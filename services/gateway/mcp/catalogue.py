"""The tools that contracts declare."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types
from baton.api.v1 import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message

from services.chassis.config import ConfigurationError
from services.gateway.backends import UnaryCall
from services.gateway.descriptors import Binding, Method
from services.gateway.mcp.arguments import KEY_ARGUMENT, ArgumentForm
from services.gateway.mcp.listing import describe
from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Print, Printers, is_object

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

OpenCall = Callable[[Method, str], UnaryCall]
"""Makes the call of a method, in whose failures the key of a request bears the given name."""


@dataclass(frozen=True)
class Tool:
    """One method, as clients of MCP call it."""

    listing: mcp_types.Tool
    read: Callable[[Mapping[str, Any]], Message]
    """From the arguments to the request. Raises InvalidArgument."""
    call: UnaryCall
    print: Print
    """From the response to the answer that REST gives."""


def catalogue_of(
    methods: Iterable[Method], comments: Mapping[str, str], open_call: OpenCall, parsers: Parsers, printers: Printers
) -> dict[str, Tool]:
    """The tools among `methods`, by name. Raises ConfigurationError for one that cannot be served."""
    methods = list(methods)
    _check_routes({method.descriptor for method in methods})
    tools: dict[str, Tool] = {}
    for method in methods:
        name = _name(method.descriptor)
        if not name:
            continue
        if name in tools:
            raise ConfigurationError(f"{method.path} is the tool {name!r}, and so is another method")
        # All routes of a method lead to the same; the first is the one it was made for.
        binding = method.bindings[0]
        _check(name, method, binding)
        form = ArgumentForm(method, binding, parsers)
        tools[name] = Tool(
            describe(name, method, binding, form.elsewhere, comments),
            form.read,
            open_call(method, KEY_ARGUMENT),
            _printer(method, binding, printers),
        )
    return tools


def _name(descriptor: MethodDescriptor) -> str:
    """The name of the tool that a method is, empty for none."""
    return descriptor.GetOptions().Extensions[annotations_pb2.mcp_tool].name


def _check_routes(served: Collection[MethodDescriptor]) -> None:
    for service in {descriptor.containing_service for descriptor in served}:
        for descriptor in service.methods:
            if _name(descriptor) and descriptor not in served:
                raise ConfigurationError(
                    f"{descriptor.full_name} is a tool, and has no route over REST, which gives it its answer"
                )


def _check(name: str, method: Method, binding: Binding) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{method.path} is the tool {name!r}: use 1 to 64 of a to z, 0 to 9 and _")
    if method.descriptor.server_streaming:
        raise ConfigurationError(f"{method.path} is the tool {name!r}, and streams: a tool has one answer")
    answered: Descriptor | None = method.descriptor.output_type
    if binding.response_body:
        field = method.descriptor.output_type.fields_by_name[binding.response_body]
        answered = None if field.is_repeated else field.message_type
    if answered is None or not is_object(answered):
        raise ConfigurationError(f"{method.path} is the tool {name!r}: its answer must be an object")


def _printer(method: Method, binding: Binding, printers: Printers) -> Print:
    output = method.descriptor.output_type
    if binding.response_body:
        return printers.of_field(output.fields_by_name[binding.response_body])
    return printers.of(output)

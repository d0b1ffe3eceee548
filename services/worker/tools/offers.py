"""The tools of a server as they are reported, without those that the service would refuse."""

import logging
from collections.abc import Iterable

from baton.tasks.v1 import tool_pb2
from mcp.types import Tool

from services.chassis import structs, validation
from services.pipeline.definition import MAX_DEPTH, is_address, is_too_deep

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of all tools of one server in a report, which is one call."""
_log = logging.getLogger(__name__)


def as_messages(server: str, tools: Iterable[Tool]) -> list[tool_pb2.Tool]:
    """The usable tools, in their order. Each of the others is logged: it must not spoil the list."""
    messages: dict[str, tool_pb2.Tool] = {}
    left = MAX_BYTES
    for tool in tools:
        try:
            message = _as_message(server, tool)
            if message.address in messages:
                raise ValueError("another tool of the server has the same name")
            if message.ByteSize() > left:
                raise ValueError(f"all tools together have more than {MAX_BYTES} bytes")
            messages[message.address] = message
            left -= message.ByteSize()
        except Exception as error:
            _log.warning("tool_not_usable", extra={"server": server, "tool": tool.name[:200], "error": str(error)})
    return list(messages.values())


def _as_message(server: str, tool: Tool) -> tool_pb2.Tool:
    address = f"{server}.{tool.name}"
    if not is_address(address):
        raise ValueError("no step can name it: a tool's name is 1 to 128 letters, digits, '_', '-' and '.'")
    for name, schema in (("input", tool.input_schema), ("output", tool.output_schema)):
        if is_too_deep(schema):
            raise ValueError(f"its {name} schema is nested deeper than {MAX_DEPTH} levels")
    message = tool_pb2.Tool(
        address=address,
        description=tool.description or "",
        input_schema=structs.to_struct(tool.input_schema),
        output_schema=None if tool.output_schema is None else structs.to_struct(tool.output_schema),
    )
    validation.check(message)
    return message

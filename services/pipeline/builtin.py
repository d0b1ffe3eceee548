"""The tools that need no server: what they are called and take. The worker does them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BuiltinTool:
    """A tool that comes with Baton."""

    address: str
    description: str
    input_schema: Mapping[str, Any]
    """The JSON Schema of its input."""


BUILTIN_TOOLS: Mapping[str, BuiltinTool] = {
    tool.address: tool for tool in (BuiltinTool("echo.test", "Answers its input unchanged.", {"type": "object"}),)
}

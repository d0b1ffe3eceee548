"""Tool servers and their tools."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

MASK = "***"


class ToolTransport(StrEnum):
    """How a tool server is reached."""

    STDIO = "stdio"
    HTTP = "http"


@dataclass(frozen=True)
class NewToolServer:
    """What a caller says of a tool server to be registered."""

    name: str
    transport: ToolTransport
    command: list[str]
    env: dict[str, str]
    url: str
    timeout_seconds: int


@dataclass(frozen=True)
class ToolServer:
    """An MCP server that offers tools to pipelines."""

    name: str
    transport: ToolTransport
    command: list[str]
    env: dict[str, str]
    url: str
    timeout_seconds: int
    created_at: datetime

    def masked(self) -> "ToolServer":
        """The same without the values of `env`, which may be API keys."""
        return replace(self, env=dict.fromkeys(self.env, MASK))


@dataclass(frozen=True)
class Tool:
    """One tool that a pipeline can use."""

    address: str
    description: str
    input_schema: dict[str, Any]

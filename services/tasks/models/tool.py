"""Tool servers and their tools."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


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


@dataclass(frozen=True)
class Tool:
    """One tool that a pipeline can use."""

    address: str
    description: str
    input_schema: dict[str, Any]

"""Tool servers."""

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from services.tasks.models.tool import DEFAULT_TIMEOUT_SECONDS

MASK = "***"
"""What stands for the values of `env`, which may be API keys."""
_S = TypeVar("_S", bound="NewToolServer")


class ToolTransport(StrEnum):
    """How a tool server is reached."""

    STDIO = "stdio"
    HTTP = "http"


class ToolServerManager(StrEnum):
    """Who says what a tool server is."""

    API = "api"
    FILE = "file"


@dataclass(frozen=True, kw_only=True)
class NewToolServer:
    """What is said of a tool server."""

    name: str
    transport: ToolTransport
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    url: str = ""
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    description: str = ""
    enabled: bool = True
    scopes: list[str] = field(default_factory=list)
    """What the owner of a task must hold when a tool is called."""

    def masked(self: _S) -> _S:
        """The same without the values of `env`."""
        return replace(self, env=dict.fromkeys(self.env, MASK))


@dataclass(frozen=True, kw_only=True)
class ToolServer(NewToolServer):
    """An MCP server that offers tools to pipelines."""

    managed_by: ToolServerManager
    created_at: datetime
    tools_known_at: datetime | None = None
    """When a worker was last told its tools."""
    last_error: str = ""
    """Why a worker was not; empty once one was."""
    last_error_at: datetime | None = None


SAID = tuple(item.name for item in fields(NewToolServer))
"""The names of what is said of a server, rather than known."""


def said(server: NewToolServer) -> dict[str, Any]:
    """What is said of a server, by name."""
    return {name: getattr(server, name) for name in SAID}

"""Calls a tool by its address, wherever it is."""

from typing import Any, Protocol

from baton.tasks.v1 import tool_pb2

from services.worker.failures import StepFailed
from services.worker.secrets.folder import Secrets
from services.worker.tools import results
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.mcp_pool import McpPool

DEFAULT_TIMEOUT_SECONDS = 30.0


class Servers(Protocol):
    """Knows the registered tool servers."""

    async def server(self, name: str) -> tool_pb2.ToolServer:
        """Raises InputNotValid when there is none of this name."""


class Toolbox:
    """The tools that steps can use."""

    def __init__(self, servers: Servers, pool: McpPool, builtin: BuiltinTools, secrets: Secrets | None = None) -> None:
        self._servers = servers
        self._pool = pool
        self._builtin = builtin
        self._secrets = secrets or Secrets()

    async def call(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """The answer of the tool `uses` (`server.tool`) as a JSON value of at most 4 MiB.

        `timeout` is in seconds; None is the server's own, or 30. The secrets that `arguments` refer to are revealed to
        the tool alone: neither the answer nor a failure tells any. Raises StepFailed, and TemplateError for a secret
        that this tool cannot have.
        """
        revealed = self._secrets.reveal(uses, arguments)
        try:
            answer = await self._answer(uses, revealed, timeout=timeout, key=key)
        except StepFailed as failure:
            failure.args = (self._secrets.clean(str(failure)),)
            raise
        return self._secrets.clean(results.checked(answer))

    async def _answer(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        if uses in self._builtin:
            return await self._builtin.call(uses, arguments, timeout=timeout or DEFAULT_TIMEOUT_SECONDS, key=key)
        name, tool = uses.split(".", 1)
        server = await self._servers.server(name)
        seconds = timeout or server.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        result = await self._pool.call(server, tool, arguments, timeout=seconds, key=key)
        return results.from_mcp(result, self._secrets.clean)

"""Calls a tool by its address, wherever it is."""

from collections.abc import Iterable
from typing import Any, Protocol

from baton.tasks.v1 import tool_pb2
from mcp.types import CallToolResult

from services.worker import measures
from services.worker.failures import InputNotValid, StepFailed
from services.worker.secrets.folder import Secrets
from services.worker.tools import results
from services.worker.tools.builtin import BuiltinTools
from services.worker.tools.mcp_pool import McpPool
from services.worker.tools.use import Use, User

DEFAULT_TIMEOUT_SECONDS = 30.0


class Servers(Protocol):
    """Knows the registered tool servers."""

    async def server(self, name: str) -> tool_pb2.ToolServer:
        """Raises InputNotValid when there is none of this name."""


class Permits(Protocol):
    """Knows what agents may use."""

    async def require(self, owner: str, scopes: Iterable[str], server: str) -> None:
        """Raises StepFailed unless the agent `owner` holds the scopes that `server` asks for."""


class Toolbox:
    """The tools that steps can use."""

    def __init__(
        self,
        servers: Servers,
        pool: McpPool,
        permits: Permits,
        builtin: BuiltinTools,
        secrets: Secrets | None = None,
    ) -> None:
        self._servers = servers
        self._pool = pool
        self._permits = permits
        self._builtin = builtin
        self._secrets = secrets or Secrets()

    def of(self, user: User) -> "UsersTools":
        """The tools as `user` may use them."""
        return UsersTools(self, user)

    async def call(self, user: User, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """The answer of the tool `uses` (`server.tool`) as a JSON value of at most 4 MiB.

        `timeout` is in seconds; None is the server's own, or 30. The secrets that `arguments` refer to are revealed to
        the tool alone, and only once `user` may use it: neither the answer nor a failure tells any. Raises StepFailed,
        and TemplateError for a secret that this tool cannot have.
        """
        try:
            answer = await self._answer(user, uses, arguments, timeout=timeout, key=key)
        except StepFailed as failure:
            failure.args = (self._secrets.clean(str(failure)),)
            raise
        return self._secrets.clean(results.checked(answer))

    async def _answer(
        self, user: User, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str
    ) -> Any:
        if uses in self._builtin:
            revealed = self._secrets.reveal(uses, arguments)
            use = Use(user, timeout or DEFAULT_TIMEOUT_SECONDS, key, self._secrets.clean)
            with measures.counted_call(uses):
                return await self._builtin.call(uses, revealed, use)
        result = await self._from_server(user.owner, uses, arguments, timeout=timeout, key=key)
        return results.from_mcp(result, self._secrets.clean)

    async def _from_server(
        self, owner: str, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str
    ) -> CallToolResult:
        name, tool = uses.split(".", 1)
        async with self._pool.turn(name):
            # Only now: what is said of the server may have changed while others had their turn.
            server = await self._servers.server(name)
            await self._require_use(server, owner)
            revealed = self._secrets.reveal(uses, arguments)
            seconds = timeout or server.timeout_seconds or DEFAULT_TIMEOUT_SECONDS
            # By its server alone: a tool's name may be anything that the author of a task has written.
            with measures.counted_call(server.name):
                return await self._pool.call(server, tool, revealed, timeout=seconds, key=key)

    async def _require_use(self, server: tool_pb2.ToolServer, owner: str) -> None:
        if not server.enabled:
            raise InputNotValid(f"tool server {server.name} is disabled")
        if server.scopes:
            await self._permits.require(owner, server.scopes, server.name)


class UsersTools:
    """The tools that the steps of one run, or a probe, can use."""

    def __init__(self, toolbox: Toolbox, user: User) -> None:
        self._toolbox = toolbox
        self._user = user

    async def call(self, uses: str, arguments: dict[str, Any], *, timeout: float | None, key: str) -> Any:
        """As `Toolbox.call`."""
        return await self._toolbox.call(self._user, uses, arguments, timeout=timeout, key=key)

"""Sessions with real MCP servers: processes that crash, hang and complain, and one over HTTP that restarts."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2

from services.chassis.egress.client import Egress
from services.pipeline.builtin import BUILTIN_TOOLS
from services.worker.failures import ToolFailed, ToolTimedOut
from services.worker.tools import builtin, results
from services.worker.tools.mcp_pool import McpPool
from tests.support.grpc import channel_of
from tests.support.mcp_servers import serve_over_http
from tests.support.waiting import await_until


class Client:
    """Calls tools of one server through a pool."""

    def __init__(self, pool: McpPool, server: tool_pb2.ToolServer) -> None:
        self._pool = pool
        self._server = server

    async def call(self, tool: str, timeout: float = 30.0, **arguments: Any) -> Any:
        return results.from_mcp(await self._pool.call(self._server, tool, arguments, timeout=timeout, key="run:step"))


@pytest.fixture
async def pool() -> AsyncIterator[McpPool]:
    opened = McpPool()
    yield opened
    await opened.close()


@pytest.fixture
def stdio(pool: McpPool) -> Client:
    command = [sys.executable, "-m", "tests.support.plain_mcp_server"]
    return Client(
        pool,
        tool_pb2.ToolServer(
            name="mis", transport=tool_pb2.TOOL_TRANSPORT_STDIO, command=command, env={"PYTHONPATH": ".", "OWN": "1"}
        ),
    )


def gone(process_id: int) -> bool:
    return not Path(f"/proc/{process_id}").exists()


async def test_a_stdio_server_that_crashes_or_hangs_is_replaced(
    stdio: Client, pool: McpPool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATON_SECRET", "hidden")
    environment = await stdio.call("environment")
    assert environment["OWN"] == "1"
    assert not [name for name in environment if name.startswith("BATON")]
    await stdio.call("complain")

    with pytest.raises(ToolFailed, match="tool server mis ended before it answered"):
        await stdio.call("crash")
    first = await stdio.call("pid")

    # A slow neighbour ends one call, not the others of the process.
    neighbour = asyncio.create_task(stdio.call("sleep", seconds=0.5))
    await asyncio.sleep(0)
    with pytest.raises(ToolTimedOut, match=r"within 0\.2 s"):
        await stdio.call("sleep", timeout=0.2, seconds=60)
    assert await neighbour == "done"
    await await_until(lambda: gone(first))
    second = await stdio.call("pid")
    assert second != first

    await pool.close()
    assert gone(second)
    assert capfd.readouterr().err == ""


async def test_a_server_that_does_not_start_says_why(pool: McpPool) -> None:
    missing = tool_pb2.ToolServer(name="no", transport=tool_pb2.TOOL_TRANSPORT_STDIO, command=["/nowhere/server"])
    with pytest.raises(ToolFailed, match="tool server no cannot be reached: no such file or directory"):
        await Client(pool, missing).call("x")
    ends = tool_pb2.ToolServer(name="ends", transport=tool_pb2.TOOL_TRANSPORT_STDIO, command=["/bin/false"])
    with pytest.raises(ToolFailed, match="tool server ends cannot be reached"):
        await Client(pool, ends).call("x")


async def test_a_server_over_http_that_was_restarted_is_found_again(pool: McpPool) -> None:
    async with serve_over_http() as url:
        server = Client(pool, tool_pb2.ToolServer(name="web", transport=tool_pb2.TOOL_TRANSPORT_HTTP, url=url))
        assert await server.call("say", text="one") == "one"
    with pytest.raises(ToolFailed, match="tool server web"):
        await server.call("say", text="two")
    async with serve_over_http(int(url.split(":")[2].split("/")[0])):
        assert await server.call("say", text="three") == "three"


async def test_calls_share_one_session(stdio: Client) -> None:
    first, second = await asyncio.gather(stdio.call("pid"), stdio.call("pid"))
    assert first == second
    assert first != os.getpid()


async def test_every_built_in_tool_that_tasks_may_use_can_be_called() -> None:
    async with channel_of("unix:/nowhere") as nobody:
        assert set(builtin.tools(Egress(), nobody, nobody, nobody)) == set(BUILTIN_TOOLS)

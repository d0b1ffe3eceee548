"""The service knows the tools that servers have now."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import pytest
from baton.tasks.v1 import tool_service_pb2, tool_service_pb2_grpc
from mcp.server.mcpserver import Context
from pydantic import Field

from services.worker.failures import ToolFailed
from services.worker.tools import results
from services.worker.tools.mcp_pool import McpPool
from services.worker.tools.registry import Registry
from tests.support import mcp_servers, proc
from tests.support.fake_tasks import FakeTasks
from tests.support.grpc import channel_of
from tests.support.mcp_servers import serve_over_http
from tests.support.waiting import await_until

Following = Callable[..., AbstractAsyncContextManager[McpPool]]
Offer = Callable[..., None]


class FaultyStub(tool_service_pb2_grpc.ToolServiceStub):
    """Fails in the client itself at the first report."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self._report = self.ReportTools
        self.ReportTools = self._report_tools  # type: ignore[assignment]
        self.broken = True

    async def _report_tools(self, request: tool_service_pb2.ReportToolsRequest) -> Any:
        if self.broken:
            self.broken = False
            raise RuntimeError("not foreseen")
        return await self._report(request)


@pytest.fixture
def following(tasks: FakeTasks) -> Following:
    """A registry at work; the value is its pool."""

    @asynccontextmanager
    async def run(stub: Any = tool_service_pb2_grpc.ToolServiceStub, **options: Any) -> AsyncIterator[McpPool]:
        async with channel_of(tasks.address) as channel:
            pool = McpPool()
            running = asyncio.create_task(Registry(stub(channel), pool, **options).run())
            try:
                yield pool
            finally:
                running.cancel()
                await asyncio.wait([running])
                await pool.close()

    return run


@pytest.fixture
def offer() -> Iterator[Offer]:
    """Gives the server over HTTP another tool while the test lasts."""
    names: list[str] = []

    def add(name: str, tool: Callable[..., Any] = lambda: "done") -> None:
        mcp_servers.server.add_tool(tool, name=name, structured_output=False)
        names.append(name)

    yield add
    for name in names:
        mcp_servers.server.remove_tool(name)


async def test_a_new_tool_of_a_running_server_becomes_known(
    tasks: FakeTasks, following: Following, http_server: str, offer: Offer
) -> None:
    async with following(introduce_every=0.1) as pool:
        await await_until(lambda: "mis" in tasks.tools)
        assert "mis.added" not in tasks.tools["mis"]
        offer("added")
        await await_until(lambda: "mis.added" in tasks.tools["mis"])
        result = await pool.call(tasks.tool_servers["mis"], "added", {}, timeout=5, key="k")
    assert not result.is_error


async def test_a_server_is_introduced_again_when_a_session_with_it_is_opened(
    tasks: FakeTasks, following: Following, offer: Offer
) -> None:
    async with AsyncExitStack() as first:
        url = await first.enter_async_context(serve_over_http())
        tasks.add_http_server("mis", url)
        server = tasks.tool_servers["mis"]
        async with following() as pool:
            await await_until(lambda: "mis" in tasks.tools)
            await first.aclose()
            with pytest.raises(ToolFailed):
                await pool.call(server, "say", {"text": "one"}, timeout=5, key="k")
            offer("added")
            async with serve_over_http(int(url.split(":")[2].split("/")[0])):
                await pool.call(server, "say", {"text": "two"}, timeout=5, key="k")
                await await_until(lambda: "mis.added" in tasks.tools["mis"])


async def test_a_tool_that_the_service_would_refuse_does_not_spoil_the_list(
    tasks: FakeTasks, following: Following, http_server: str, offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"x": deep}

    def nested(value: Annotated[Any, Field(json_schema_extra=deep)]) -> str:
        return "done"

    offer("l" * 197)
    offer("nested", nested)
    offer("added")
    caplog.set_level(logging.WARNING, "services.worker")
    async with following() as pool:
        await await_until(lambda: "mis" in tasks.tools)
        # Left out of the list only: the server still does it.
        result = await pool.call(tasks.tool_servers["mis"], "nested", {"value": 1}, timeout=5, key="k")
    assert sorted(tasks.tools["mis"]) == sorted(
        f"mis.{name}" for name in ("add", "added", "big", "busy", "fail", "flaky", "key", "say", "slow")
    )
    assert not result.is_error
    left_out = [record.tool for record in caplog.records if record.message == "tool_not_usable"]  # type: ignore[attr-defined]
    assert sorted(left_out) == ["l" * 197, "nested"]


async def test_an_unforeseen_failure_does_not_end_the_introductions(
    tasks: FakeTasks, following: Following, http_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "services.worker")
    async with following(stub=FaultyStub):
        await await_until(lambda: "mis" in tasks.tools)
    assert "not foreseen" in [getattr(record, "error", "") for record in caplog.records]


async def test_a_server_that_says_that_it_has_other_tools_is_asked_for_them(
    tasks: FakeTasks, following: Following
) -> None:
    tasks.add_stdio_server("plain", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    async with following() as pool:
        await await_until(lambda: "plain" in tasks.tools)
        await pool.call(tasks.tool_servers["plain"], "grow", {"name": "added"}, timeout=5, key="k")
        await await_until(lambda: "plain.added" in tasks.tools["plain"])


async def test_a_server_over_http_is_listened_to_for_other_tools(
    tasks: FakeTasks, following: Following, http_server: str, offer: Offer
) -> None:
    async def announce(context: Context[Any, Any]) -> str:
        await context.notify_tools_changed()
        return "done"

    offer("announce", announce)
    async with following() as pool:
        await await_until(lambda: "mis" in tasks.tools)
        offer("added")
        await pool.call(tasks.tool_servers["mis"], "announce", {}, timeout=5, key="k")
        await await_until(lambda: "mis.added" in tasks.tools["mis"])


async def test_why_a_server_cannot_be_asked_is_told(tasks: FakeTasks, following: Following) -> None:
    tasks.add_stdio_server("none", "/nowhere/server")
    tasks.add_stdio_server("ends", "/bin/false")
    async with following():
        await await_until(lambda: len(tasks.tool_errors) == 2)
        assert tasks.tool_errors == {
            "none": "tool server none cannot be reached: no such file or directory",
            "ends": "tool server ends cannot be reached: it ended with exit code 1",
        }
        # Once it can be asked, nothing is wrong with it any more.
        tasks.add_stdio_server("ends", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
        await await_until(lambda: "ends" in tasks.tools)
        assert list(tasks.tool_errors) == ["none"]


async def test_a_server_whose_tools_were_forgotten_is_asked_again(
    tasks: FakeTasks, following: Following, http_server: str
) -> None:
    """As when it is deleted and registered anew before anybody has looked."""
    async with following():
        await await_until(lambda: "mis" in tasks.tools)
        del tasks.tools["mis"]
        tasks.tool_servers["mis"].status.ClearField("tools_known_at")
        await await_until(lambda: "mis" in tasks.tools)


async def test_why_a_server_cannot_be_called_is_told_at_once(tasks: FakeTasks, following: Following) -> None:
    async with AsyncExitStack() as first:
        tasks.add_http_server("mis", await first.enter_async_context(serve_over_http()))
        server = tasks.tool_servers["mis"]
        async with following() as pool:
            await await_until(lambda: "mis" in tasks.tools)
            await first.aclose()
            for _ in range(2):
                with pytest.raises(ToolFailed):
                    await pool.call(server, "say", {"text": "one"}, timeout=5, key="k")
            await await_until(lambda: "cannot be reached" in tasks.tool_errors.get("mis", ""))


async def test_a_disabled_server_is_left_alone_until_it_is_enabled(tasks: FakeTasks, following: Following) -> None:
    tasks.add_stdio_server("plain", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    tasks.add_stdio_server("idle", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    tasks.tool_servers["idle"].enabled = False
    async with following() as pool:
        await await_until(lambda: "plain" in tasks.tools)
        answer = await pool.call(tasks.tool_servers["plain"], "pid", {}, timeout=5, key="k")
        process_id = results.from_mcp(answer)
        tasks.tool_servers["plain"].enabled = False
        await await_until(lambda: proc.gone(process_id))
        assert "idle" not in tasks.tools
        tasks.tool_servers["idle"].enabled = True
        await await_until(lambda: "idle" in tasks.tools)


async def test_a_session_outlives_what_has_nothing_to_do_with_it(tasks: FakeTasks, following: Following) -> None:
    tasks.add_stdio_server("plain", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    async with following(introduce_every=0.1) as pool:
        await await_until(lambda: "plain" in tasks.tools)
        server = tasks.tool_servers["plain"]
        pid = await pool.call(server, "pid", {}, timeout=5, key="k")
        server.scopes.append("tool:notify")
        server.description = "another"
        server.timeout_seconds = 7
        looked = tasks.looked
        await await_until(lambda: tasks.looked > looked + 1)
        assert (await pool.call(server, "pid", {}, timeout=5, key="k")).content == pid.content
        # One at another place is another one.
        server.env["OTHER"] = "1"
        assert (await pool.call(server, "pid", {}, timeout=5, key="k")).content != pid.content

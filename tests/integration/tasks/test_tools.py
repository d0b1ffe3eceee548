"""The tools that servers offer."""

import pytest
from baton.tasks.v1.tool_pb2 import Tool
from baton.tasks.v1.tool_service_pb2 import (
    ListToolServersRequest,
    ListToolsRequest,
    ReportToolsRequest,
)

from services.chassis.errors import InvalidArgument, NotFound
from services.chassis.structs import to_struct
from services.pipeline.builtin import BUILTIN_TOOLS
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.tool_servers import STDIO, register


async def test_all_tools_are_in_one_list_by_address(tasks: Tasks) -> None:
    names = ["B", "a", "a-b", "a_b", "ab", "aB", "Z"]
    for server in ("dog", "fox"):
        await register(tasks, **STDIO | {"name": server})
        tools = [Tool(address=f"{server}.{name}", description=name) for name in names]
        await tasks.tools.ReportTools(ReportToolsRequest(server=server, tools=tools))
    whole = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
    assert set(whole) == {f"{server}.{name}" for server in ("dog", "fox") for name in names} | set(BUILTIN_TOOLS)
    assert len(whole) == 14 + len(BUILTIN_TOOLS)
    # Servers in the order of their names, the built-in ones among them.
    assert (whole.index("echo.test"), whole.index("events.publish"), whole.index("http.request")) == (7, 8, 16)
    # A tool at a time, nothing is left out and nothing comes twice, whatever order the database has for texts.
    one_by_one, request = [], ListToolsRequest(limit=1)
    while True:
        page = await tasks.tools.ListTools(request)
        one_by_one += [tool.address for tool in page.items]
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert one_by_one == whole


async def test_a_tool_tells_what_it_takes_and_answers_and_what_its_server_asks(tasks: Tasks) -> None:
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    tool = Tool(
        address="time.now",
        description="Tells the time.\n",
        input_schema=to_struct(schema),
        output_schema=to_struct({"type": "object", "required": ["time"]}),
    )
    await register(tasks, **STDIO, scopes=["tool:clock"], timeout_seconds=7, enabled=False)
    # What is the server's is not a worker's to say.
    told = Tool(server="other", scopes=["tool:other"], timeout_seconds=1, enabled=True)
    told.MergeFrom(tool)
    await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=[told, Tool(address="time.then")]))
    echo, publish, http, log, run, now, then, *_ = (await tasks.tools.ListTools(ListToolsRequest())).items
    tool.MergeFrom(Tool(server="time", scopes=["tool:clock"], timeout_seconds=7))
    assert now == tool
    assert not then.HasField("output_schema")
    assert (echo.address, echo.input_schema["type"]) == ("echo.test", "object")
    assert (http.address, list(http.input_schema["required"])) == ("http.request", ["url"])
    assert http.output_schema["required"] == ["status", "headers", "url"]
    assert [list(one.scopes) for one in (publish, log, run)] == [["events:publish"], ["logs:write"], ["tasks:write"]]
    assert (echo.server, list(echo.scopes), echo.timeout_seconds, echo.enabled) == ("echo", [], 30, True)


async def test_tools_are_found_by_server_and_by_text(tasks: Tasks) -> None:
    for server in ("time", "time-zones"):
        await register(tasks, **STDIO | {"name": server})
        tools = [Tool(address=f"{server}.now", description="Tells the TIME."), Tool(address=f"{server}.list")]
        await tasks.tools.ReportTools(ReportToolsRequest(server=server, tools=tools))

    async def found(**filters: str) -> list[str]:
        return [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest(**filters))).items]

    assert await found(server="time") == ["time.list", "time.now"]
    assert await found(server="echo") == ["echo.test"]
    assert await found(server="nowhere") == []
    assert await found(q="tells the time") == ["time-zones.now", "time.now"]
    assert await found(q="ZONES.l") == ["time-zones.list"]
    assert await found(q="unchanged") == ["echo.test"]
    assert await found(q="%") == []
    assert await found(q="now", server="time") == ["time.now"]
    first = await tasks.tools.ListTools(ListToolsRequest(q="now", limit=1))
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tools.ListTools(ListToolsRequest(q="list", limit=1, cursor=first.next_cursor))
    assert refused.value.reason == "CURSOR_INVALID"


async def test_a_report_replaces_the_one_before(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await register(tasks, **STDIO | {"name": "other"})
    await tasks.tools.ReportTools(ReportToolsRequest(server="other", tools=[Tool(address="other.tool")]))
    for names in (["a", "b"], ["b", "c"], []):
        tools = [Tool(address=f"time.{name}") for name in names]
        await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=tools))
        listed = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
        assert listed == sorted([*BUILTIN_TOOLS, "other.tool", *(f"time.{name}" for name in names)])


@one_engine
async def test_a_report_says_one_thing_or_the_other(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tools.ReportTools(
            ReportToolsRequest(server="time", tools=[Tool(address="time.now")], error="it is away")
        )
    assert [violation.field for violation in refused.value.violations] == ["tools"]
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tools.ReportTools(ReportToolsRequest(server="time", error="x" * 501))
    assert [violation.field for violation in refused.value.violations] == ["error"]


async def test_the_tools_of_no_server_are_refused(tasks: Tasks) -> None:
    with pytest.raises(NotFound, match="'nowhere'") as refused:
        await tasks.tools.ReportTools(ReportToolsRequest(server="nowhere"))
    assert refused.value.reason == "TOOL_SERVER_NOT_FOUND"
    assert refused.value.metadata == {"name": "nowhere"}


async def test_bad_tools_are_named_and_nothing_is_stored(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=[Tool(address="time.before")]))
    addresses = ["time.now", "git.log", "time.now", "time." + "x" * 200]
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tools.ReportTools(
            ReportToolsRequest(server="time", tools=[Tool(address=address) for address in addresses])
        )
    assert [violation.field for violation in refused.value.violations] == [
        "tools[1].address",
        "tools[2].address",
        "tools[3].address",
    ]
    listed = {tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items}
    assert listed == {*BUILTIN_TOOLS, "time.before"}


@one_engine
@pytest.mark.parametrize("name", ["ListTools", "ListToolServers"])
async def test_a_bad_cursor_is_refused(tasks: Tasks, name: str) -> None:
    request = {"ListTools": ListToolsRequest, "ListToolServers": ListToolServersRequest}[name](cursor="nonsense")
    with pytest.raises(InvalidArgument) as refused:
        await getattr(tasks.tools, name)(request)
    assert refused.value.reason == "CURSOR_INVALID"

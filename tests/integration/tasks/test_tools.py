"""Tool servers and their tools."""

from typing import Any

import pytest
from baton.tasks.v1.tool_pb2 import TOOL_TRANSPORT_HTTP, TOOL_TRANSPORT_STDIO, Tool, ToolServer
from baton.tasks.v1.tool_service_pb2 import (
    CreateToolServerRequest,
    ListToolServersRequest,
    ListToolsRequest,
    ReportToolsRequest,
)
from baton.tasks.v1.tool_service_pb2_grpc import ToolServiceStub
from sqlalchemy import select

from services.chassis.errors import AlreadyExists, InvalidArgument, NotFound
from services.chassis.structs import to_struct
from services.pipeline.builtin import BUILTIN_TOOLS
from services.tasks.store import tables
from tests.integration.tasks.running import Tasks, one_engine

STDIO: dict[str, Any] = {"name": "time", "transport": TOOL_TRANSPORT_STDIO, "command": ["/bin/time"]}
HTTP: dict[str, Any] = {"name": "time", "transport": TOOL_TRANSPORT_HTTP, "url": "https://tools.example/mcp"}


async def register(tasks: Tasks, **fields: Any) -> ToolServer:
    return (await tasks.admin_tools.CreateToolServer(CreateToolServerRequest(**fields))).tool_server


async def test_registered_servers_are_listed_by_name(tasks: Tasks) -> None:
    servers = [
        await register(tasks, **HTTP | {"name": "web", "timeout_seconds": 5}),
        await register(tasks, **STDIO | {"name": "clock", "command": ["/bin/time", "-s"], "env": {"TZ": "UTC"}}),
        await register(tasks, **HTTP | {"name": "local", "url": "http://127.0.0.1:9000/mcp"}),
    ]
    web, clock, local = servers
    assert (web.timeout_seconds, clock.timeout_seconds) == (5, 30)
    assert (list(clock.command), dict(clock.env), clock.url) == (["/bin/time", "-s"], {"TZ": "***"}, "")
    assert clock.created_at.seconds == tasks.clock.now().timestamp()
    first = await tasks.tools.ListToolServers(ListToolServersRequest(limit=2))
    # They are listed by a worker, who needs the values that nobody else is shown.
    clock.env["TZ"] = "UTC"
    assert (list(first.items), first.has_more) == ([clock, local], True)
    last = await tasks.tools.ListToolServers(ListToolServersRequest(limit=2, cursor=first.next_cursor))
    assert (list(last.items), last.has_more, last.HasField("next_cursor")) == ([web], False, False)


async def test_a_name_is_taken_once(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    with pytest.raises(AlreadyExists, match="'time'") as refused:
        await register(tasks, **HTTP)
    assert refused.value.reason == "TOOL_SERVER_NAME_TAKEN"
    assert refused.value.metadata == {"name": "time"}


async def test_a_repeated_request_registers_one_server(tasks: Tasks) -> None:
    first = await register(tasks, **STDIO, request_id="the key")
    assert await register(tasks, **STDIO, request_id="the key") == first


@pytest.mark.parametrize(
    ("scopes", "value"),
    [
        (["tools:admin"], "***"),
        (["admin"], "***"),
        (["runs:work", "tools:admin"], "secret key"),
        (["runs:work", "admin"], "secret key"),
    ],
)
async def test_the_values_of_an_environment_are_shown_to_workers_alone(
    tasks: Tasks, scopes: list[str], value: str
) -> None:
    await register(tasks, **STDIO | {"env": {"API_KEY": "secret key", "EMPTY": ""}})
    stub = ToolServiceStub(tasks.channel(scopes))
    (server,) = (await stub.ListToolServers(ListToolServersRequest())).items
    assert dict(server.env) == {"API_KEY": value, "EMPTY": "***" if value == "***" else ""}


async def test_an_environment_refers_to_secrets_and_to_nothing_else(tasks: Tasks) -> None:
    env = {"TOKEN": "${secrets.github_token}", "URL": "https://joe:${secrets.password}@host", "TEXT": "$${HOME} $5"}
    await register(tasks, **STDIO, env=env)
    (server,) = (await tasks.tools.ListToolServers(ListToolServersRequest())).items
    assert dict(server.env) == env

    faulty = {"HOME": "${HOME}", "KEY": "s3cr3t${", "PART": "${secrets.a.b}", "NAME": '${secrets."a-b"}'}
    with pytest.raises(InvalidArgument) as refused:
        await register(tasks, **STDIO | {"name": "other", "env": faulty | env})
    rule = "may hold no other template than ${secrets.NAME}; a literal ${ is written $${"
    faults = {violation.field: violation.description for violation in refused.value.violations}
    assert faults == {f"env.{name}": rule for name in faulty}


@pytest.mark.parametrize("scopes", [["runs:work", "tools:admin"], ["runs:work", "admin"]])
async def test_an_agent_with_a_role_is_no_worker_and_sees_no_values(tasks: Tasks, scopes: list[str]) -> None:
    await register(tasks, **STDIO | {"env": {"API_KEY": "secret key"}})
    stub = ToolServiceStub(tasks.channel(scopes, role="mailer"))
    (server,) = (await stub.ListToolServers(ListToolServersRequest())).items
    assert dict(server.env) == {"API_KEY": "***"}


async def test_the_answer_that_is_remembered_holds_no_values(tasks: Tasks) -> None:
    answers = [await register(tasks, **STDIO, env={"API_KEY": "secret key"}, request_id="the key") for _ in range(2)]
    assert [dict(answer.env) for answer in answers] == [{"API_KEY": "***"}] * 2
    query = select(tables.idempotency_keys.c.response)
    (remembered,) = await tasks.database.read(lambda connection, clock: connection.execute(query).scalars().all())
    assert b"API_KEY" in remembered
    assert b"secret" not in remembered


@one_engine
@pytest.mark.parametrize("url", ["https://user:secret@tools.example/", "https://secret@a/", "https://u:secret@[::1"])
async def test_a_password_in_a_url_is_refused_and_not_repeated(tasks: Tasks, url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await register(tasks, **HTTP | {"url": url})
    (violation,) = refused.value.violations
    assert violation.field == "url"
    assert "secret" not in violation.description + refused.value.message


@one_engine
@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        (STDIO | {"name": "Time"}, ["name"]),
        (STDIO | {"name": "echo"}, ["name"]),
        (STDIO | {"transport": 0}, ["transport"]),
        (STDIO | {"command": []}, ["command"]),
        (STDIO | {"command": ["time"]}, ["command[0]"]),
        (STDIO | {"command": ["../bin/time"], "url": "https://a"}, ["command[0]", "url"]),
        (STDIO | {"timeout_seconds": 0}, ["timeout_seconds"]),
        (STDIO | {"timeout_seconds": 3601}, ["timeout_seconds"]),
        (HTTP | {"url": ""}, ["url"]),
        (HTTP | {"command": ["/bin/time"], "env": {"A": "1"}}, ["command", "env"]),
        (HTTP | {"url": "http://tools.example/mcp"}, ["url"]),
        (HTTP | {"url": "http://127.0.0.1@tools.example/"}, ["url"]),
        (HTTP | {"url": "http://localhost.example/"}, ["url"]),
        (HTTP | {"url": "http://10.0.0.1/"}, ["url"]),
        (HTTP | {"url": "ftp://localhost/"}, ["url"]),
        (HTTP | {"url": "https://"}, ["url"]),
        (HTTP | {"url": "https://[::1"}, ["url"]),
        (HTTP | {"url": "https://tools.example:port/"}, ["url"]),
        (HTTP | {"url": "tools.example"}, ["url"]),
    ],
)
async def test_a_server_that_cannot_be_used_is_refused(tasks: Tasks, fields: dict[str, Any], faulty: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await register(tasks, **fields)
    assert [violation.field for violation in refused.value.violations] == faulty
    assert await tasks.count(tables.tool_servers) == 0


@one_engine
@pytest.mark.parametrize("url", ["https://tools.example:8443/mcp", "http://localhost:1/", "http://[::1]:80/mcp"])
async def test_urls_are_https_or_loopback(tasks: Tasks, url: str) -> None:
    assert (await register(tasks, **HTTP | {"url": url})).url == url


async def test_all_tools_are_in_one_list_by_address(tasks: Tasks) -> None:
    names = ["B", "a", "a-b", "a_b", "ab", "aB", "Z"]
    for server in ("dog", "fox"):
        await register(tasks, **STDIO | {"name": server})
        tools = [Tool(address=f"{server}.{name}", description=name) for name in names]
        await tasks.tools.ReportTools(ReportToolsRequest(server=server, tools=tools))
    whole = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
    assert set(whole) == {f"{server}.{name}" for server in ("dog", "fox") for name in names} | set(BUILTIN_TOOLS)
    assert len(whole) == 16
    assert (whole.index("echo.test"), whole.index("http.request")) == (7, 15)
    # A tool at a time, nothing is left out and nothing comes twice, whatever order the database has for texts.
    one_by_one, request = [], ListToolsRequest(limit=1)
    while True:
        page = await tasks.tools.ListTools(request)
        one_by_one += [tool.address for tool in page.items]
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert one_by_one == whole


async def test_a_tool_tells_what_it_takes(tasks: Tasks) -> None:
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    tool = Tool(address="time.now", description="Tells the time.\n", input_schema=to_struct(schema))
    await register(tasks, **STDIO)
    await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=[tool]))
    echo, http, now = (await tasks.tools.ListTools(ListToolsRequest())).items
    assert now == tool
    assert (echo.address, echo.input_schema["type"]) == ("echo.test", "object")
    assert (http.address, list(http.input_schema["required"])) == ("http.request", ["url"])


async def test_a_report_replaces_the_one_before(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await register(tasks, **STDIO | {"name": "other"})
    await tasks.tools.ReportTools(ReportToolsRequest(server="other", tools=[Tool(address="other.tool")]))
    for names in (["a", "b"], ["b", "c"], []):
        tools = [Tool(address=f"time.{name}") for name in names]
        await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=tools))
        listed = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
        assert listed == ["echo.test", "http.request", "other.tool", *(f"time.{name}" for name in names)]


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
    assert [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items] == [
        "echo.test",
        "http.request",
        "time.before",
    ]


@one_engine
@pytest.mark.parametrize("name", ["ListTools", "ListToolServers"])
async def test_a_bad_cursor_is_refused(tasks: Tasks, name: str) -> None:
    request = {"ListTools": ListToolsRequest, "ListToolServers": ListToolServersRequest}[name](cursor="nonsense")
    with pytest.raises(InvalidArgument) as refused:
        await getattr(tasks.tools, name)(request)
    assert refused.value.reason == "CURSOR_INVALID"

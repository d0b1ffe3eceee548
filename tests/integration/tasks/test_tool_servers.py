"""Registering, changing and deleting tool servers."""

from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2
from baton.tasks.v1.task_service_pb2 import CancelTaskRequest, RunTaskNowRequest
from baton.tasks.v1.tool_pb2 import TOOL_TRANSPORT_HTTP, TOOL_TRANSPORT_STDIO, ToolServer
from baton.tasks.v1.tool_service_pb2 import (
    DeleteToolServerRequest,
    GetToolServerRequest,
    ListToolServersRequest,
    ListToolsRequest,
    ReportToolsRequest,
    UpdateToolServerRequest,
)
from baton.tasks.v1.tool_service_pb2_grpc import ToolServiceStub
from google.protobuf.struct_pb2 import ListValue, Struct
from sqlalchemy import select

from services.chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.chassis.structs import to_struct, to_value
from services.pipeline.builtin import BUILTIN_TOOLS
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.tool_servers import HTTP, STDIO, offer, register


def strings(*items: Any) -> ListValue:
    return to_value(list(items)).list_value


async def get(tasks: Tasks, name: str = "time") -> ToolServer:
    return (await tasks.tools.GetToolServer(GetToolServerRequest(name=name))).tool_server


async def update(tasks: Tasks, name: str = "time", **fields: Any) -> ToolServer:
    return (await tasks.admin_tools.UpdateToolServer(UpdateToolServerRequest(name=name, **fields))).tool_server


async def as_a_worker(tasks: Tasks, name: str = "time") -> ToolServer:
    """A server with the values of its `env`."""
    (found,) = [
        item for item in (await tasks.tools.ListToolServers(ListToolServersRequest())).items if item.name == name
    ]
    return found


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


@pytest.mark.parametrize("scopes", [["runs:work", "tools:admin"], ["runs:work", "admin"]])
async def test_an_agent_with_a_role_is_no_worker_and_sees_no_values(tasks: Tasks, scopes: list[str]) -> None:
    await register(tasks, **STDIO | {"env": {"API_KEY": "secret key"}})
    stub = ToolServiceStub(tasks.channel(scopes, role="mailer"))
    (server,) = (await stub.ListToolServers(ListToolServersRequest())).items
    assert dict(server.env) == {"API_KEY": "***"}


async def test_an_environment_refers_to_secrets_and_to_nothing_else(tasks: Tasks) -> None:
    env = {"TOKEN": "${secrets.github_token}", "URL": "https://joe:${secrets.password}@host", "TEXT": "$${HOME} $5"}
    await register(tasks, **STDIO, env=env)
    assert dict((await as_a_worker(tasks)).env) == env

    faulty = {"HOME": "${HOME}", "KEY": "s3cr3t${", "PART": "${secrets.a.b}", "NAME": '${secrets."a-b"}'}
    rule = "may hold no other template than ${secrets.NAME}; a literal ${ is written $${"
    with pytest.raises(InvalidArgument) as refused:
        await register(tasks, **STDIO | {"name": "other", "env": faulty | env})
    faults = {violation.field: violation.description for violation in refused.value.violations}
    assert faults == {f"env.{name}": rule for name in faulty}
    with pytest.raises(InvalidArgument) as refused:
        await update(tasks, env=to_struct(faulty | {"TOKEN": "***"}))
    faults = {violation.field: violation.description for violation in refused.value.violations}
    assert faults == {f"env.{name}": rule for name in faulty}
    assert dict((await as_a_worker(tasks)).env) == env


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
        (STDIO | {"env": {"KEY": "***"}}, ["env.KEY"]),
        (STDIO | {"description": "x" * 1001}, ["description"]),
        (STDIO | {"scopes": ["notify"]}, ["scopes[0]"]),
        (STDIO | {"scopes": ["tool:a", "tool:b c", "tools:read", "admin"]}, ["scopes[1]", "scopes[2]", "scopes[3]"]),
        (STDIO | {"scopes": ["tool:" + "x" * 96]}, ["scopes[0]"]),
        (STDIO | {"scopes": ["tool:a", "tool:a"]}, ["scopes"]),
        (STDIO | {"scopes": [f"tool:{n}" for n in range(21)]}, ["scopes"]),
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
        (HTTP | {"url": "https://tools.example/\n"}, ["url"]),
        (HTTP | {"url": "https://tools.example/a b"}, ["url"]),
        (HTTP | {"url": "https://tools.example:0/"}, ["url"]),
        (HTTP | {"url": "https://a..b/"}, ["url"]),
    ],
)
async def test_a_server_that_cannot_be_used_is_refused(tasks: Tasks, fields: dict[str, Any], faulty: list[str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await register(tasks, **fields)
    assert [violation.field for violation in refused.value.violations] == faulty
    assert await tasks.count(tables.tool_servers) == 0


@one_engine
async def test_a_name_that_is_missing_is_told_from_a_wrong_one(tasks: Tasks) -> None:
    told = []
    for name in ("", "Upper"):
        with pytest.raises(InvalidArgument) as refused:
            await register(tasks, **STDIO | {"name": name})
        (violation,) = refused.value.violations
        told.append(violation.description)
    assert told[0] == "is required: text that matches ^[a-z][a-z0-9_-]{0,63}$"
    assert told[1] != told[0]


@one_engine
@pytest.mark.parametrize("url", ["https://tools.example:8443/mcp", "http://localhost:1/", "http://[::1]:80/mcp"])
async def test_urls_are_https_or_loopback(tasks: Tasks, url: str) -> None:
    assert (await register(tasks, **HTTP | {"url": url})).url == url


async def test_all_that_is_said_of_a_server_is_kept(tasks: Tasks) -> None:
    given = STDIO | {
        "description": "Knows the time.",
        "enabled": False,
        "scopes": ["tool:notify", "tool:calendar.read"],
    }
    created = await register(tasks, **given)
    assert (created.description, created.enabled) == ("Knows the time.", False)
    assert list(created.scopes) == ["tool:notify", "tool:calendar.read"]
    assert created.managed_by == tool_pb2.TOOL_SERVER_MANAGER_API
    assert await get(tasks) == created
    assert (await register(tasks, **HTTP | {"name": "web"})).enabled


async def test_one_server_is_read_without_the_values_of_its_environment(tasks: Tasks) -> None:
    await register(tasks, **STDIO, env={"API_KEY": "secret"})
    assert dict((await get(tasks)).env) == {"API_KEY": "***"}
    with pytest.raises(NotFound, match="'nowhere'") as refused:
        await get(tasks, "nowhere")
    assert refused.value.reason == "TOOL_SERVER_NOT_FOUND"


async def test_only_what_is_given_is_changed(tasks: Tasks) -> None:
    before = await register(
        tasks, **STDIO, env={"KEY": "old", "OTHER": "kept"}, scopes=["tool:a"], description="old", timeout_seconds=5
    )
    assert (await update(tasks, enabled=False)).enabled is False
    after = await update(tasks, enabled=True)
    assert after == before
    after = await update(
        tasks,
        command=strings("/bin/other", "-x"),
        env=to_struct({"KEY": "new", "OTHER": "***"}),
        scopes=strings(),
        description="",
        timeout_seconds=7,
    )
    assert (list(after.command), list(after.scopes)) == (["/bin/other", "-x"], [])
    assert (after.description, after.timeout_seconds) == ("", 7)
    # A value that is sent back as it is shown stays what it is.
    assert dict((await as_a_worker(tasks)).env) == {"KEY": "new", "OTHER": "kept"}
    assert dict((await update(tasks, env=Struct())).env) == {}


async def test_a_server_moves_from_one_transport_to_the_other(tasks: Tasks) -> None:
    await register(tasks, **STDIO, env={"KEY": "x"})
    with pytest.raises(InvalidArgument) as refused:
        await update(tasks, transport=TOOL_TRANSPORT_HTTP)
    assert [fault.field for fault in refused.value.violations] == ["command", "env", "url"]
    moved = await update(
        tasks, transport=TOOL_TRANSPORT_HTTP, url="https://tools.example/", command=strings(), env=Struct()
    )
    assert (moved.transport, moved.url, list(moved.command)) == (TOOL_TRANSPORT_HTTP, "https://tools.example/", [])
    back = await update(tasks, transport=TOOL_TRANSPORT_STDIO, url="", command=strings("/bin/time"))
    assert back.transport == TOOL_TRANSPORT_STDIO


@pytest.mark.parametrize(
    ("fields", "faulty"),
    [
        ({"command": strings("time")}, ["command[0]"]),
        ({"command": strings("/bin/time", 1, None)}, ["command[1]", "command[2]"]),
        ({"command": strings(*["/a"] * 65)}, ["command"]),
        ({"command": strings()}, ["command"]),
        ({"command": strings("/bin/time", "a\0b")}, ["command[1]"]),
        ({"env": to_struct({"KEY": 1})}, ["env.KEY"]),
        ({"env": to_struct({"a b": "1"})}, ["env.a b"]),
        ({"env": to_struct({"NEW": "***"})}, ["env.NEW"]),
        ({"url": "https://a"}, ["url"]),
        ({"timeout_seconds": 0}, ["timeout_seconds"]),
        ({"description": "x" * 1001}, ["description"]),
        ({"scopes": strings("notify")}, ["scopes[0]"]),
        ({"scopes": strings(*[f"tool:{n}" for n in range(21)])}, ["scopes"]),
        ({"transport": 0}, ["transport"]),
        ({"request_id": "x" * 256}, ["request_id"]),
    ],
)
@one_engine
async def test_a_bad_change_is_refused_and_nothing_is_changed(
    tasks: Tasks, fields: dict[str, Any], faulty: list[str]
) -> None:
    before = await register(tasks, **STDIO)
    with pytest.raises(InvalidArgument) as refused:
        await update(tasks, **fields)
    assert [violation.field for violation in refused.value.violations] == faulty
    assert await get(tasks) == before


async def test_what_is_not_there_is_not_changed_or_deleted(tasks: Tasks) -> None:
    with pytest.raises(NotFound) as refused:
        await update(tasks, "nowhere", enabled=False)
    assert refused.value.reason == "TOOL_SERVER_NOT_FOUND"
    with pytest.raises(NotFound) as refused:
        await tasks.admin_tools.DeleteToolServer(DeleteToolServerRequest(name="nowhere"))
    assert refused.value.reason == "TOOL_SERVER_NOT_FOUND"


async def test_of_a_server_at_another_place_nothing_is_known(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await offer(tasks, "time", now={})
    assert (await update(tasks, description="still the same")).status.HasField("tools_known_at")
    with pytest.raises(InvalidArgument, match="has no such tool"):
        await tasks.create(payload={"pipeline": [{"uses": "time.later"}]})
    assert not (await update(tasks, command=strings("/bin/other"))).status.HasField("tools_known_at")
    listed = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
    assert listed == list(BUILTIN_TOOLS)
    await tasks.create(payload={"pipeline": [{"uses": "time.later"}]})


async def test_workers_say_why_they_cannot_ask_a_server(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    assert not (await get(tasks)).status.HasField("tools_known_at")
    await offer(tasks, "time", now={})
    known_at = tasks.clock.now()
    tasks.clock.advance(seconds=60)
    await tasks.tools.ReportTools(ReportToolsRequest(server="time", error="no such file or directory"))
    status = (await as_a_worker(tasks)).status
    assert (status.last_error, status.last_error_at.seconds) == (
        "no such file or directory",
        tasks.clock.now().timestamp(),
    )
    # What was known stays known.
    assert status.tools_known_at.seconds == known_at.timestamp()
    assert "time.now" in [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
    await offer(tasks, "time", now={})
    status = (await get(tasks)).status
    assert (status.last_error, status.HasField("last_error_at")) == ("", False)
    with pytest.raises(NotFound):
        await tasks.tools.ReportTools(ReportToolsRequest(server="nowhere", error="x"))


async def test_a_server_that_tasks_use_is_deleted_only_by_force(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    await register(tasks, **STDIO | {"name": "time-zones"})
    uses = {
        "pipeline": [{"uses": "echo.test"}, {"uses": "time.now", "with": {"zone": "${params.z}"}}],
        "params": {"z": 1},
    }
    users = [await tasks.create(title=f"task {n}", payload=uses) for n in range(12)]
    others = [
        await tasks.create(payload={"pipeline": [{"uses": "time-zones.now"}]}),
        await tasks.create(payload={"pipeline": [{"uses": "echo.test", "with": {"uses": "time.now"}}]}),
        await tasks.create(payload=uses),
    ]
    await tasks.tasks.CancelTask(CancelTaskRequest(task_id=others[-1].id))
    request = DeleteToolServerRequest(name="time")
    with pytest.raises(FailedPrecondition, match=r"'task 11' \(.*'task 2' \(.* and more; ") as refused:
        await tasks.admin_tools.DeleteToolServer(request)
    newest = [task.id for task in reversed(users[2:])]
    assert refused.value.reason == "TOOL_SERVER_IN_USE"
    assert refused.value.metadata == {"name": "time", "task_ids": ",".join(newest)}
    assert await get(tasks)

    await offer(tasks, "time", now={})
    deleted = await tasks.admin_tools.DeleteToolServer(DeleteToolServerRequest(name="time", force=True))
    assert list(deleted.task_ids) == newest
    assert [item.name for item in (await tasks.tools.ListToolServers(ListToolServersRequest())).items] == ["time-zones"]
    left = [tool.address for tool in (await tasks.tools.ListTools(ListToolsRequest())).items]
    assert left == list(BUILTIN_TOOLS)
    # What uses it can still be started, and fails when it comes to the step.
    await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=users[0].id))
    with pytest.raises(InvalidArgument, match="there is no tool server 'time'"):
        await tasks.create(payload=uses)


async def test_a_server_that_nobody_uses_is_deleted_and_its_name_free(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    request = DeleteToolServerRequest(name="time", request_id="the key")
    answers = [await tasks.admin_tools.DeleteToolServer(request) for _ in range(2)]
    assert [list(answer.task_ids) for answer in answers] == [[], []]
    await register(tasks, **HTTP)


async def test_a_repeated_change_is_one_change(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    first = await update(tasks, description="new", request_id="the key")
    await update(tasks, description="newer")
    assert await update(tasks, description="new", request_id="the key") == first
    assert (await get(tasks)).description == "newer"


async def test_every_change_is_audited_and_no_secret_is_told(tasks: Tasks) -> None:
    await register(tasks, **STDIO, env={"KEY": "secret one"}, request_id="first")
    await update(tasks, description="new", env=to_struct({"KEY": "secret two"}), request_id="second")
    await update(tasks, description="new")  # which changes nothing
    await tasks.admin_tools.DeleteToolServer(DeleteToolServerRequest(name="time", request_id="third"))
    created, updated, deleted = await audited_changes(tasks)
    assert [entry["action"] for entry in (created, updated, deleted)] == [
        "tool_server.create",
        "tool_server.update",
        "tool_server.delete",
    ]
    assert {entry["resource"] for entry in (created, updated, deleted)} == {"tool_server/time"}
    assert [entry["request_id"] for entry in (created, updated, deleted)] == ["first", "second", "third"]
    assert created["before"] is None
    assert (created["after"]["command"], created["after"]["env"]) == (["/bin/time"], {"KEY": "***"})
    assert updated["before"] == {"description": "", "env": {"KEY": "***"}}
    assert updated["after"] == {"description": "new", "env": {"KEY": "***"}}
    assert (deleted["before"]["description"], deleted["after"]) == ("new", None)
    assert "secret" not in str((created, updated, deleted))


async def test_a_refused_change_is_not_audited(tasks: Tasks) -> None:
    await register(tasks, **STDIO)
    before = await audited_changes(tasks)
    with pytest.raises(InvalidArgument):
        await update(tasks, command=strings("time"))
    assert await audited_changes(tasks) == before

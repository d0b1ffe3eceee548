"""Tool servers that the operator lists in a file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from baton.tasks.v1 import tool_pb2
from baton.tasks.v1.tool_service_pb2 import (
    DeleteToolServerRequest,
    ListToolServersRequest,
    UpdateToolServerRequest,
)

from services.chassis.config import ConfigurationError
from services.chassis.errors import FailedPrecondition, Unavailable
from services.tasks.service import build
from services.tasks.store import tables
from services.tasks.tool_servers_file import ToolServersFile, read
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.tool_servers import STDIO, offer, register

SERVERS = """
- name: time
  transport: stdio
  command: [/bin/time, -s]
  env: {API_KEY: "${secrets.TIME_KEY}"}
  scopes: [tool:clock]
  description: Knows the time.
  timeout_seconds: 5
  enabled: false
- name: web
  transport: http
  url: https://tools.example/mcp
"""
Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file: text as it is, everything else as JSON."""

    def put(content: Any) -> Path:
        path = tmp_path / "tool-servers.yaml"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return put


async def listed(tasks: Tasks) -> dict[str, tool_pb2.ToolServer]:
    return {server.name: server for server in (await tasks.tools.ListToolServers(ListToolServersRequest())).items}


async def sync(tasks: Tasks, path: Path) -> dict[str, tool_pb2.ToolServer]:
    await ToolServersFile(path, tasks.database).step()
    return await listed(tasks)


async def test_what_the_file_lists_is_there(tasks: Tasks, write: Write) -> None:
    servers = await sync(tasks, write(SERVERS))
    assert list(servers) == ["time", "web"]
    time = servers["time"]
    assert (list(time.command), dict(time.env)) == (["/bin/time", "-s"], {"API_KEY": "${secrets.TIME_KEY}"})
    assert (list(time.scopes), time.description, time.timeout_seconds) == (["tool:clock"], "Knows the time.", 5)
    assert (time.enabled, servers["web"].enabled, servers["web"].timeout_seconds) == (False, True, 30)
    assert {server.managed_by for server in servers.values()} == {tool_pb2.TOOL_SERVER_MANAGER_FILE}


async def test_the_table_follows_the_file(tasks: Tasks, write: Write) -> None:
    await register(tasks, **STDIO | {"name": "mine"})
    await sync(tasks, write(SERVERS))
    await offer(tasks, "web", tool={})
    before = await audited_changes(tasks)
    # Read again it changes nothing, and what is known of the tools stays.
    assert (await sync(tasks, write(SERVERS)))["web"].status.HasField("tools_known_at")
    assert await audited_changes(tasks) == before
    servers = await sync(tasks, write([{"name": "web", "transport": "http", "url": "https://other.example/"}]))
    assert list(servers) == ["mine", "web"]
    assert servers["web"].url == "https://other.example/"
    assert not servers["web"].status.HasField("tools_known_at")
    assert list(await sync(tasks, write("[]"))) == ["mine"]
    told = [(entry["action"], entry["resource"]) for entry in (await audited_changes(tasks))[len(before) :]]
    assert told == [
        ("tool_server.delete", "tool_server/time"),
        ("tool_server.update", "tool_server/web"),
        ("tool_server.delete", "tool_server/web"),
    ]


async def test_a_server_of_the_file_is_changed_only_there(tasks: Tasks, write: Write) -> None:
    await sync(tasks, write(SERVERS))
    before = await listed(tasks)
    for call in (
        tasks.admin_tools.UpdateToolServer(UpdateToolServerRequest(name="time", enabled=True)),
        tasks.admin_tools.DeleteToolServer(DeleteToolServerRequest(name="time", force=True)),
    ):
        with pytest.raises(FailedPrecondition, match="'time' comes from the operator's file") as refused:
            await call
        assert refused.value.reason == "TOOL_SERVER_MANAGED_BY_FILE"
        assert refused.value.metadata == {"name": "time"}
    assert await listed(tasks) == before


async def test_a_server_that_was_registered_becomes_the_files(tasks: Tasks, write: Write) -> None:
    registered = await register(tasks, **STDIO | {"command": ["/bin/own"]}, env={"KEY": "own"})
    time = (await sync(tasks, write(SERVERS)))["time"]
    assert time.managed_by == tool_pb2.TOOL_SERVER_MANAGER_FILE
    assert (list(time.command), dict(time.env)) == (["/bin/time", "-s"], {"API_KEY": "${secrets.TIME_KEY}"})
    assert time.created_at == registered.created_at


@one_engine
async def test_the_service_is_ready_once_the_table_says_what_the_file_says(tasks: Tasks, write: Write) -> None:
    service = build(replace(tasks.settings, tool_servers_file=write(SERVERS)), tasks.clock)
    assert service.tool_servers_file is not None
    with pytest.raises(Unavailable):
        await service.ready()
    await service.tool_servers_file.step()
    await service.ready()
    await service.close()
    assert await tasks.count(tables.tool_servers) == 2


STDIO_ENTRY = {"name": "time", "transport": "stdio", "command": ["/bin/time"]}


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("a: [", ["is neither YAML nor JSON"]),
        ("", ["the file: must be of type array"]),
        ({"name": "time"}, ["the file: must be of type array"]),
        ([{"name": "time"}], ["[0]: 'transport' is a required property"]),
        ([STDIO_ENTRY | {"transport": "pigeon"}], ["[0].transport: 'pigeon' is not one of"]),
        ([STDIO_ENTRY | {"nmae": "time"}], ["[0]: Additional properties are not allowed ('nmae' was unexpected)"]),
        ([STDIO_ENTRY | {"env": {"KEY": 12345}}], ["[0].env.KEY: must be of type string"]),
        ([STDIO_ENTRY | {"env": {"a b": "secret 12345"}}], ["[0].env.a b: "]),
        ([STDIO_ENTRY | {"timeout_seconds": 0}], ["[0].timeout_seconds: 0 is less than"]),
        ([STDIO_ENTRY | {"name": "Time"}], ["[0].name: "]),
        ([STDIO_ENTRY | {"name": "echo"}], ["[0].name: 'echo' is built in"]),
        ([STDIO_ENTRY | {"command": ["time"]}], ["[0].command[0]: 'time' must be the executable's absolute path"]),
        ([STDIO_ENTRY | {"scopes": ["notify"]}], ["[0].scopes[0]: 'notify' is not of the form tool:<name>"]),
        ([STDIO_ENTRY, STDIO_ENTRY], ["[1].name: 'time' is already in the list"]),
        (
            [STDIO_ENTRY | {"command": []}, {"name": "web", "transport": "http", "url": "http://a.example/"}],
            ["[0].command: is required", "[1].url: must be an https URL"],
        ),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_service_and_says_why(
    write: Write, content: Any, faults: list[str]
) -> None:
    path = write(content)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    for fault in faults:
        assert fault in str(refused.value)
    assert "12345" not in str(refused.value)

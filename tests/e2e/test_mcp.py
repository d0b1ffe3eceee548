"""An agent that works with Baton over MCP alone, with the real client."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from services.gateway.mcp.calls import REPLAYED
from tests.e2e.test_readme import blocks
from tests.support.baton import ROOT, Baton, task
from tests.support.waiting import wait_until

SCOPES = ("tasks:read", "tasks:write", "approvals:read", "approvals:request", "runs:read", "logs:read", "logs:write")
TOOLS = {
    "create_task", "list_tasks", "run_now", "snooze_task", "cancel_task", "route_task", "fetch_status",
    "notify", "request_approval", "list_approvals", "append_log", "whoami", "advance_workflow",
    "list_handoffs", "accept_handoff", "reject_handoff",
}  # fmt: skip
DOCUMENT = (ROOT / "docs" / "mcp.md").read_text()
ECHO = {"id": "echo", "uses": "echo.test", "with": {"text": "${params.greeting}"}, "save_as": "echo"}


def echoing(title: str, **fields: Any) -> dict[str, Any]:
    """A task that says hello."""
    return task(title, ECHO, params={"greeting": "hello"}, **fields)


@asynccontextmanager
async def opened(baton: Baton, token: str, mode: Any = "auto", **headers: str) -> AsyncIterator[Client]:
    """A client that knows what the tools answer, and holds their results against that."""
    authorization = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=authorization | headers, timeout=60) as http,
        Client(streamable_http_client(f"{baton.url}/mcp", http_client=http), mode=mode) as client,
    ):
        await client.list_tools()
        yield client


def text(result: CallToolResult) -> str:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


async def done(client: Client, name: str, **arguments: Any) -> Any:
    """The answer of a call that must succeed."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text(result)
    assert json.loads(text(result)) == result.structured_content
    return result.structured_content


async def refused(client: Client, name: str, **arguments: Any) -> Any:
    """The problem of a call that must fail."""
    result = await client.call_tool(name, arguments)
    assert result.is_error
    return json.loads(text(result))


@pytest.fixture
def token(baton: Baton) -> str:
    return baton.agent_token(SCOPES)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_agent_sees_what_it_can_do(baton: Baton, token: str, mode: str) -> None:
    async with opened(baton, token, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools.keys() >= TOOLS
    run_now = tools["run_now"]
    assert run_now.description is not None
    assert run_now.description.startswith("Queues one run of a task at once")
    assert run_now.description.endswith("Scope: `tasks:write`.")
    assert run_now.input_schema["required"] == ["task_id"]
    assert run_now.input_schema["properties"].keys() == {"task_id", "params", "idempotency_key"}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_agent_keeps_its_tasks(baton: Baton, token: str, mode: str) -> None:
    mark = uuid4().hex
    cron = echoing(mark, schedule_kind="cron", schedule_expr="0 7 * * *")
    async with opened(baton, token, mode) as client:
        created = await done(client, "create_task", **cron)
        assert created == baton.get(f"/tasks/{created['id']}") | {"last_run": None}
        started = await done(client, "run_now", task_id=created["id"], params={"greeting": "hi"})
        run_id = started["details"]["run_id"]
        assert (await asyncio.to_thread(baton.finished, run_id))["output"] == {"echo": {"text": "hi"}}
        status = await done(client, "fetch_status", task_id=created["id"])
        assert (status["last_run"]["id"], status["last_run"]["status"]) == (run_id, "succeeded")
        listed = await done(client, "list_tasks", text=mark, status=["active"], limit=1)
        assert ([item["id"] for item in listed["items"]], listed["total"]) == ([created["id"]], 1)
        snoozed = await done(client, "snooze_task", task_id=created["id"], delay_seconds=60, reason="busy")
        assert snoozed["details"]["affected_work_items"] == 1
        canceled = await done(client, "cancel_task", task_id=created["id"])
        assert canceled["details"]["new_status"] == "canceled"
        told = await refused(client, "run_now", task_id=created["id"])
        assert (told["status"], told["reason"]) == (409, "TASK_NOT_ACTIVE")
    assert baton.get(f"/tasks/{created['id']}")["status"] == "canceled"


async def test_agents_hand_work_over_and_ask_for_approval(baton: Baton, token: str) -> None:
    role, key = f"releaser-{uuid4().hex[:8]}", str(uuid4())
    work = {"task_type": "notification", "description": "Release 1.2", "data": {"version": "1.2"}}
    async with opened(baton, token) as client:
        assert [
            error["field"] for error in (await refused(client, "route_task", target=role, task=work))["errors"]
        ] == ["idempotency_key"]
        routed = await done(client, "route_task", target=role, task=work, idempotency_key=key)
        assert routed["status"] == "pending"
        again = await client.call_tool("route_task", {"target": role, "task": work, "idempotency_key": key})
        assert (again.structured_content, (again.meta or {}).get(REPLAYED)) == (routed, True)
        other = await refused(client, "route_task", target=role, task=work, context={"a": 1}, idempotency_key=key)
        assert (other["status"], other["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        asked = await done(
            client, "request_approval", task_id=routed["task_id"], approver_role="lead", reason="Is it time?"
        )
        approvals = await done(client, "list_approvals", approver_role="lead", task_id=routed["task_id"])
        assert [item["id"] for item in approvals["items"]] == [asked["approval_id"]]
        status = await done(client, "fetch_status", task_id=routed["task_id"])
        assert status["last_run"]["status"] == "awaiting_approval"
        pending = await done(client, "list_tasks", target=role, status=["pending"])
        assert [item["id"] for item in pending["items"]] == [routed["task_id"]]


async def test_agents_tell_a_role_something_and_keep_a_log(baton: Baton) -> None:
    role = f"lead-{uuid4().hex[:8]}"
    agent = baton.create("/agents", {"name": role, "scopes": ["agents:read", *SCOPES]})
    minted = baton.create(f"/agents/{agent['id']}/tokens", {"scopes": list(SCOPES)})
    token = minted["token"]
    async with opened(baton, token) as client:
        itself = await done(client, "whoami")
        assert (itself["agent"]["name"], itself["scopes"], itself["token_id"]) == (role, sorted(SCOPES), minted["id"])
        told = await done(client, "notify", target=role, message="It is late", data={"by": "an hour"})
        status = await done(client, "fetch_status", task_id=told["task_id"])
        assert (status["role"], status["title"]) == (role, "It is late")
        assert status["payload"]["params"] == {
            "task_type": "notification", "description": "It is late", "data": {"by": "an hour"}, "context": {},
        }  # fmt: skip
        entry = {"event_category": "response", "event_type": "text", "content": "I told them", "task_slug": "late"}
        answer = await done(client, "append_log", agent_id=itself["agent"]["id"], entries=[entry] * 2)
        assert [int(index) for index in answer["entry_indexes"]] == [0, 1]
    entries = baton.get(f"/agents/{agent['id']}/logs")["items"]
    assert [one["content"] for one in entries] == ["I told them"] * 2


async def test_a_repeated_key_has_one_effect(baton: Baton, token: str) -> None:
    mark = uuid4().hex
    async with opened(baton, token) as client:
        first, again = [
            await client.call_tool("create_task", echoing(mark) | {"idempotency_key": mark}) for _ in range(2)
        ]
        assert first.structured_content == again.structured_content
        assert [(one.meta or {}).get(REPLAYED) for one in (first, again)] == [None, True]
        assert (await done(client, "list_tasks", text=mark))["total"] == 1
    # The key is the same one over REST.
    over_rest = baton.call("POST", "/tasks", echoing(mark), token=token, Idempotency_Key=mark)
    assert (over_rest.json(), over_rest.headers["Idempotent-Replayed"]) == (first.structured_content, "true")


@pytest.mark.parametrize(
    ("name", "arguments", "fields"),
    [
        ("create_task", echoing(""), ["title"]),
        ("create_task", echoing("x") | {"priority": "high", "colour": "red"}, ["colour", "priority"]),
        ("create_task", task("x", {"uses": "no.such", "with": 3}), ["payload.pipeline[0].uses",
                                                                  "payload.pipeline[0].with"]),
        ("run_now", {}, ["task_id"]),
        ("run_now", {"task_id": "t-1"}, ["task_id"]),
        ("snooze_task", {"task_id": str(uuid4()), "delay_seconds": 0}, ["delay_seconds"]),
        ("list_tasks", {"limit": 201}, ["limit"]),
        ("cancel_task", {"task_id": str(uuid4()), "idempotency_key": "a b"}, ["idempotency_key"]),
        ("cancel_task", {"task_id": str(uuid4()), "request_id": "k"}, ["request_id"]),
    ],
)  # fmt: skip
async def test_bad_arguments_are_named(
    baton: Baton, token: str, name: str, arguments: dict[str, Any], fields: list[str]
) -> None:
    async with opened(baton, token) as client:
        told = await refused(client, name, **arguments)
    assert told["status"] == 400
    assert sorted(error["field"] for error in told["errors"]) == fields


async def test_an_agent_does_no_more_than_its_token_holds(baton: Baton) -> None:
    async with opened(baton, baton.agent_token(["tasks:read"])) as client:
        told = await refused(client, "create_task", **echoing("Not mine"))
        assert (told["status"], told["reason"]) == (403, "SCOPE_MISSING")
        assert "'tasks:write'" in told["detail"]
        assert (await done(client, "list_tasks", limit=1))["limit"] == 1


async def test_what_is_done_is_recorded_as_the_agent_s(baton: Baton, token: str) -> None:
    async with opened(baton, token) as client:
        created = await done(client, "create_task", **echoing("Recorded"))
    (entry,) = wait_until(lambda: baton.get(f"/audit?resource=task/{created['id']}")["items"])
    assert (entry["action"], entry["actor"]) == ("task.create", created["created_by"])


async def test_a_run_continues_the_trace_of_the_call(baton: Baton, token: str) -> None:
    created = baton.create("/tasks", echoing("Traced"))
    trace = uuid4().hex
    async with opened(baton, baton.admin_token) as client:
        result = await client.call_tool(
            "run_now", {"task_id": created["id"]}, meta={"traceparent": f"00-{trace}-{'1' * 16}-01"}
        )
    assert result.structured_content is not None
    assert baton.get(f"/runs/{result.structured_content['details']['run_id']}")["trace_id"] == trace


@pytest.mark.parametrize("bad", ["", "baton_no_such_token", "nonsense"])
def test_nobody_gets_in_without_a_token(baton: Baton, bad: str) -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = baton.call("POST", "/mcp", listing, token=bad, Accept="application/json")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_revoked_token_ends(baton: Baton) -> None:
    agent = baton.create("/agents", {"name": f"agent-{uuid4()}", "scopes": ["tasks:read"]})
    token = baton.create(f"/agents/{agent['id']}/tokens", {"scopes": ["tasks:read"]})
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "list_tasks"}}
    assert baton.call("POST", "/mcp", listing, token=token["token"], Accept="application/json").status_code == 200
    assert baton.call("DELETE", f"/agents/{agent['id']}/tokens/{token['id']}").status_code == 200
    wait_until(lambda: baton.call("POST", "/mcp", listing, token=token["token"]).status_code == 401)


def test_the_program_of_the_document_does_what_it_says(baton: Baton, token: str) -> None:
    (program,) = blocks(DOCUMENT, "python")
    environment = {**os.environ, "URL": baton.url, "BATON_TOKEN": token}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert baton.finished(ran.stdout.strip())["output"] == {"echo": {"text": "hello"}}


async def test_the_document_lists_the_tools(baton: Baton, token: str) -> None:
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \| .* \| (?:`([a-z:]+)`|any token) \|$", DOCUMENT, re.MULTILINE)
    told = {name: scope for names, scope in rows for name in re.findall("[a-z_]+", names)}
    async with opened(baton, token) as client:
        tools = (await client.list_tools()).tools
    assert told == {tool.name: "".join(re.findall("Scope: `(.*)`", tool.description or "")) for tool in tools}

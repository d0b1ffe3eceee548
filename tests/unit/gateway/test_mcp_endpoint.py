"""The endpoint of MCP as HTTP sees it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp_types import INVALID_PARAMS
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis import telemetry
from services.chassis.auth import invalid_token
from services.chassis.errors import FailedPrecondition
from services.gateway.body import MAX_BODY_BYTES
from tests.support.waiting import await_until
from tests.unit.gateway.garden import TOKEN, Garden
from tests.unit.gateway.mcp_client import HEADERS, MODES, URL, call, message, open_client
from tests.unit.gateway.test_server import served

MODERN = {
    "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "list_plants",
}  # fmt: skip
CLIENT = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "a client", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HEADER_TRACE, CALL_TRACE = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def http(garden: Garden) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(garden.app), headers=HEADERS) as opened:
        yield opened


@pytest.mark.parametrize("token", ["", "Bearer baton_no_such_token", "Bearer nonsense", "Bearer a.b.c", "Basic YTpi"])
@pytest.mark.parametrize("body", [message("tools/list"), call("list_plants"), {}])
async def test_nothing_is_done_without_a_good_token(
    http: httpx2.AsyncClient, garden: Garden, token: str, body: dict[str, Any]
) -> None:
    answer = await http.post(URL, json=body, headers={"Authorization": token})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["reason"] in ("TOKEN_MISSING", "TOKEN_INVALID")
    assert garden.greenhouse.requests == []


async def test_a_token_that_a_service_refuses_is_refused(http: httpx2.AsyncClient, garden: Garden) -> None:
    garden.greenhouse.fails_with = invalid_token()
    answer = await http.post(URL, json=call("list_plants"))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["reason"] == "TOKEN_INVALID"


async def test_a_token_that_nobody_can_check_is_tried_later(http: httpx2.AsyncClient, garden: Garden) -> None:
    await garden.server.stop(None)
    answer = await http.post(URL, json=message("tools/list"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("verb", ["GET", "DELETE", "PUT"])
async def test_only_post_is_possible(http: httpx2.AsyncClient, verb: str) -> None:
    answer = await http.request(verb, URL)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"", {}, 400),
        (b"[]", {}, 400),
        (b"3", {}, 400),
        (b'{"jsonrpc": "2.0", "id": 1}', {}, 400),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', {}, 400),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', {}, 400),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]}', {}, 400),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {}}', {}, 400),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "method": "tools/list"}', {}, 400),
        (b"\xff", {}, 400),
        (b"[" * 5000, {}, 400),
        (b"x" * (MAX_BODY_BYTES + 1), {}, 413),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (json.dumps(message("tools/list")).encode(), {"accept": "text/plain"}, 406),
        (json.dumps(message("tools/list")).encode(), {"mcp-protocol-version": "1999-01-01"}, 400),
    ],
)
@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_what_is_no_request_is_refused(
    http: httpx2.AsyncClient, garden: Garden, content: bytes, headers: dict[str, str], status: int, version: str
) -> None:
    given = {"content-type": "application/json", "mcp-protocol-version": version} | headers
    answer = await http.post(URL, content=content, headers=given)
    assert answer.status_code == status, answer.text
    assert answer.headers["x-request-id"]
    assert garden.greenhouse.requests == []


async def test_a_name_given_twice_is_a_fault(http: httpx2.AsyncClient, garden: Garden) -> None:
    content = json.dumps(call("plant", name="basil")).replace('"name": "basil"', '"name": "basil", "name": "thyme"')
    answer = await http.post(URL, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "params.arguments.name", "message": "is given more than once"}]
    assert garden.greenhouse.requests == []


async def test_what_is_no_message_is_told_what_one_is(http: httpx2.AsyncClient) -> None:
    answer = await http.post(URL, json=[call("list_plants")])
    assert (answer.status_code, answer.json()["reason"]) == (400, "MESSAGE_NOT_JSON_RPC")
    assert "one request or notification of JSON-RPC" in answer.json()["detail"]


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_params_of_the_wrong_type_are_named(http: httpx2.AsyncClient, version: str) -> None:
    body = message("tools/call", name="list_plants", arguments=["basil"], _meta=CLIENT)
    answer = await http.post(URL, json=body, headers=MODERN | {"mcp-protocol-version": version})
    assert answer.json()["error"]["code"] == INVALID_PARAMS
    assert answer.json()["error"]["message"] == "params.arguments: input should be a valid dictionary"


async def test_a_notification_is_taken(http: httpx2.AsyncClient) -> None:
    answer = await http.post(URL, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert answer.status_code == 202


async def test_a_call_needs_nothing_before_it(http: httpx2.AsyncClient) -> None:
    answer = await http.post(URL, json=call("list_plants"), headers={"Accept": "application/json", "X-Request-ID": "x"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["x-request-id"], "mcp-session-id" in answer.headers) == ("x", False)
    assert answer.json()["result"]["structuredContent"]["items"] == []
    modern = call("list_plants") | {"params": {"name": "list_plants", "arguments": {}, "_meta": CLIENT}}
    answer = await http.post(URL, json=modern, headers=MODERN)
    assert (answer.status_code, answer.json()["result"]["structuredContent"]["items"]) == (200, [])


@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(garden: Garden, mode: str) -> None:
    async with open_client(garden, mode) as client:
        with pytest.raises(MCPError, match="there are look_at_plant, list_plants") as raised:
            await client.call_tool("enter", {})
    assert raised.value.code == INVALID_PARAMS


async def test_many_are_served_at_once(garden: Garden) -> None:
    garden.greenhouse.hold = asyncio.Event()
    async with open_client(garden) as client:
        calls = [asyncio.create_task(client.call_tool("list_plants", {"limit": n + 1})) for n in range(20)]
        await await_until(lambda: _has(garden, 20))
        garden.greenhouse.hold.set()
        assert not any(result.is_error for result in await asyncio.gather(*calls))


async def _has(garden: Garden, count: int) -> bool:
    return len(garden.greenhouse.requests) == count


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_is_waited_for_no_more(garden: Garden, mode: str) -> None:
    garden.greenhouse.hold = asyncio.Event()
    modern = mode == "auto"
    body = json.dumps(message("tools/call", name="list_plants", arguments={}, **({"_meta": CLIENT} if modern else {})))
    headers = HEADERS | {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers | (MODERN if modern else {})).items())
    async with served(garden) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(f"POST /mcp HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}".encode())
        await await_until(lambda: _has(garden, 1))
        writer.transport.abort()
        await asyncio.wait_for(garden.greenhouse.given_up.wait(), 3)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    telemetry.tracer.cache_clear()
    yield exporter
    telemetry.tracer.cache_clear()
    provider.shutdown()


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


async def test_a_call_is_part_of_the_trace_of_its_request(
    http: httpx2.AsyncClient, garden: Garden, spans: InMemorySpanExporter
) -> None:
    traceparent = f"00-{HEADER_TRACE}-b7ad6b7169203331-01"
    await http.post(URL, json=call("list_plants"), headers={"traceparent": traceparent})
    request, called = named(spans, "POST /mcp"), named(spans, "tools/call list_plants")
    assert trace.format_trace_id(request.context.trace_id) == HEADER_TRACE
    assert called.parent is not None
    assert called.parent.span_id == request.context.span_id
    assert called.attributes == {"mcp.method.name": "tools/call", "gen_ai.tool.name": "list_plants"}
    assert garden.greenhouse.metadata["traceparent"].startswith(f"00-{HEADER_TRACE}-")


async def test_a_call_continues_the_trace_that_it_brings_itself(
    http: httpx2.AsyncClient, garden: Garden, spans: InMemorySpanExporter
) -> None:
    body = message(
        "tools/call", name="harvest_plant", arguments={}, _meta={"traceparent": f"00-{CALL_TRACE}-{'1' * 16}-01"}
    )
    answer = await http.post(URL, json=body, headers={"traceparent": f"00-{HEADER_TRACE}-{'2' * 16}-01"})
    request, called = named(spans, "POST /mcp"), named(spans, "tools/call harvest_plant")
    assert trace.format_trace_id(called.context.trace_id) == CALL_TRACE
    assert [link.context.span_id for link in called.links] == [request.context.span_id]
    assert json.loads(answer.json()["result"]["content"][0]["text"])["trace_id"] == CALL_TRACE
    assert called.attributes is not None
    assert called.attributes["baton.error.reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("told", ["nonsense", 7, None, {}])
async def test_a_trace_that_is_none_is_not_continued(
    http: httpx2.AsyncClient, spans: InMemorySpanExporter, told: object
) -> None:
    body = message("tools/call", name="list_plants", arguments={}, _meta={"traceparent": told})
    assert (await http.post(URL, json=body)).status_code == 200
    called = named(spans, "tools/call list_plants")
    assert called.parent is not None
    assert called.parent.span_id == named(spans, "POST /mcp").context.span_id


async def test_the_access_log_has_the_tool_and_nothing_that_is_secret(
    http: httpx2.AsyncClient, garden: Garden, caplog: pytest.LogCaptureFixture
) -> None:
    garden.greenhouse.fails_with = FailedPrecondition("the bed is full", reason="BED_FULL")
    with caplog.at_level(logging.INFO):
        await http.post(URL, json=call("list_plants", cursor="private"))
        await http.post(URL, json=message("tools/list"))
    called, listed = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert [called[name] for name in ("method", "route", "status", "tool", "reason")] == [
        "POST", "/mcp", 200, "list_plants", "BED_FULL",
    ]  # fmt: skip
    assert (listed["route"], "tool" in listed) == ("/mcp", False)
    everything = "".join(str(vars(record)) for record in caplog.records if record.name != "httpx2")
    assert "private" not in everything
    assert TOKEN not in everything
    assert not [record.name for record in caplog.records if record.name.startswith("mcp.server")]

"""Streams of messages as server-sent events."""

import asyncio
import json
from dataclasses import replace

import httpx2
import pytest

from services.chassis.config import ConfigurationError
from services.chassis.errors import PermissionDenied
from services.gateway import descriptors, event_stream
from tests.support.waiting import await_until
from tests.unit.gateway.garden import OWN_JWT, PACKAGE, Contract, Garden
from tests.unit.gateway.serving import Served, served

LAST_CHUNK = b"0\r\n\r\n"


async def next_event(reader: asyncio.StreamReader) -> dict[str, str]:
    """The next event, or the next comment, by field."""
    block = await asyncio.wait_for(_block(reader), 5)
    return {name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in block)}


async def _block(reader: asyncio.StreamReader) -> list[str]:
    size = int(await reader.readline(), 16)
    text = (await reader.readexactly(size + 2)).decode()
    assert text.endswith("\n\n\r\n")
    return text.strip().splitlines()


async def begun(
    gateway: Served, path: str = "/plants:watch", *headers: str, token: str = OWN_JWT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    reader, writer = await gateway.ask(path, *headers, token=token)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    return reader, writer, head


async def test_messages_are_events_with_ids(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, head = await begun(gateway, "/plants:watch?events=2")
        assert head.startswith("HTTP/1.1 200 OK")
        assert "content-type: text/event-stream; charset=utf-8" in head
        assert "cache-control: no-store" in head
        assert "x-request-id: " in head
        first, second, third = [await next_event(reader) for _ in range(3)]
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)
    assert first == {"retry": "1000", "id": "0", "data": '{"number":0,"text":""}'}
    assert (second["id"], json.loads(second["data"])) == ("1", {"number": 1, "text": "grows\n"})
    assert third["id"] == "2"


@pytest.mark.parametrize(
    ("path", "headers", "after"),
    [
        ("/plants:watch", (), 0),
        ("/plants:watch?after=3", (), 3),
        ("/plants:watch", ("Last-Event-ID: 7",), 7),
        # A browser that comes back asks for the same URL, and adds the header.
        ("/plants:watch?after=3", ("Last-Event-ID: 7",), 7),
        ("/plants:watch?after=3", ("Last-Event-ID:",), 3),
    ],
)
async def test_a_stream_goes_on_behind_the_last_event(
    garden: Garden, path: str, headers: tuple[str, ...], after: int
) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, path, *headers)
        assert (await next_event(reader))["id"] == str(after)
        writer.close()


async def test_an_event_id_of_something_else_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/plants:watch", headers={"Last-Event-ID": "seven"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


async def test_a_failure_before_the_first_event_is_a_problem(garden: Garden, client: httpx2.AsyncClient) -> None:
    garden.greenhouse.fails_with = PermissionDenied("no")
    answer = await client.get("/plants:watch")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    nobody = await client.get("/plants:watch", headers={"Authorization": ""})
    assert nobody.status_code == 401


async def test_a_failure_midway_is_the_last_event(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway)
        await next_event(reader)
        garden.greenhouse.watch_fails.set()
        problem = await next_event(reader)
        assert problem["event"] == "problem"
        told = json.loads(problem["data"])
        assert (told["status"], told["reason"], told["instance"]) == (404, "PLANTS_GONE", "/plants:watch")
        assert await asyncio.wait_for(reader.readexactly(len(LAST_CHUNK)), 5) == LAST_CHUNK
        writer.close()


async def test_a_stream_on_which_nothing_happens_has_a_heartbeat(
    garden: Garden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway)
        await next_event(reader)
        assert await next_event(reader) == {"": ""}
        assert await next_event(reader) == {"": ""}
        garden.greenhouse.watch_fails.set()
        while "event" not in (event := await next_event(reader)):
            assert event == {"": ""}
        writer.close()


async def test_who_does_not_read_holds_back_who_tells(garden: Garden) -> None:
    produced: list[int] = []

    def stands_still() -> bool:
        produced.append(garden.greenhouse.watched)
        return len(produced) > 50 and produced[-1] == produced[-50] > 0

    async with served(garden, grace_seconds=1) as gateway:
        reader, writer = await gateway.ask("/plants:watch?events=100000&size=10000")
        await await_until(stands_still)
        # Of a gigabyte; what there is, is in the buffers of sockets.
        assert garden.greenhouse.watched < 32_000_000
        before = garden.greenhouse.watched
        read = 0
        while garden.greenhouse.watched == before and read < 64_000_000:
            read += len(await asyncio.wait_for(reader.read(1_000_000), 5))
        assert garden.greenhouse.watched > before
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)


async def test_a_gateway_that_stops_ends_its_streams_at_once(garden: Garden) -> None:
    async with served(garden, grace_seconds=30) as gateway:
        reader, writer, _ = await begun(gateway)
        await next_event(reader)
        assert await gateway.stopped() < 5
        # Whole: the client is to come back, not to wonder.
        assert await asyncio.wait_for(reader.read(), 5) == LAST_CHUNK
        writer.close()
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)


async def test_the_document_says_what_the_events_are(client: httpx2.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/plants:watch"]["get"]
    assert {"Last-Event-ID", "after"} <= {parameter["name"] for parameter in operation["parameters"]}
    data = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]["properties"]["data"]
    assert data["contentSchema"]["anyOf"][0]["$ref"].endswith("WatchPlantsResponse")


@pytest.mark.parametrize("broken", ["id_field", "resume_field"])
def test_a_stream_of_events_names_fields_that_there_are(
    contract: Contract, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, *_ = [one for one in descriptors.load_methods([PACKAGE]) if one.streams_events]
    policy = type(method.policy)()
    policy.CopyFrom(method.policy)
    setattr(policy.event_stream, broken, "none")
    with pytest.raises(ConfigurationError, match="'none'"):
        descriptors._check(replace(method, policy=policy))

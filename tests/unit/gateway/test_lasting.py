"""Streams of events and the token that they were asked for with: it may be changed, end, or be taken away."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from services.chassis import auth
from services.chassis.errors import PermissionDenied, Unauthenticated, Unavailable
from services.gateway import lasting
from tests.support.waiting import await_until
from tests.unit.gateway.garden import ACCESS_TOKEN, TOKEN, Garden
from tests.unit.gateway.serving import served
from tests.unit.gateway.test_event_stream import begun, next_event

REVOKED = Unauthenticated("the token is not valid", reason="TOKEN_INVALID")


def access_token(seconds: float, *scopes: str) -> str:
    """One that ends after so long. Nobody here looks at signatures."""
    claims = json.dumps({"exp": int(time.time() + seconds), "scopes": scopes}).encode()
    return f"head.{urlsafe_b64encode(claims).decode().rstrip('=')}.signature"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody remembers for long what a token is worth."""
    monkeypatch.setattr(auth, "EXCHANGE_MEMORY_SECONDS", 0.05)
    monkeypatch.setattr(lasting, "PACE_SECONDS", 0.05)


async def problem(reader: asyncio.StreamReader) -> dict[str, Any]:
    """What the stream ends with."""
    while "event" not in (event := await next_event(reader)):
        pass
    assert event["event"] == "problem"
    told: dict[str, Any] = json.loads(event["data"])
    return told


async def test_a_stream_ends_when_its_token_is_revoked(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, token=TOKEN)
        await next_event(reader)
        garden.office.fails_with = REVOKED
        told = await problem(reader)
        assert (told["status"], told["reason"], told["instance"]) == (401, "TOKEN_INVALID", "/plants:watch")
        await asyncio.wait_for(garden.greenhouse.watch_ended.wait(), 5)
        writer.close()


async def test_so_does_one_on_which_much_is_told(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, "/plants:watch?events=1000000", token=TOKEN)
        await next_event(reader)
        garden.office.fails_with = REVOKED
        assert (await problem(reader))["reason"] == "TOKEN_INVALID"
        writer.close()


async def test_a_stream_ends_with_the_caller_s_own_access_token(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, token=access_token(1.5))
        assert (await problem(reader))["reason"] == "TOKEN_INVALID"
        writer.close()


async def test_a_stream_goes_on_with_a_new_access_token_behind_its_last_event(garden: Garden) -> None:
    garden.office.access_token = first = access_token(2, "plants:read")
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, "/plants:watch?events=2&after=5", token=TOKEN)
        assert [(await next_event(reader))["id"] for _ in range(3)] == ["5", "6", "7"]
        assert garden.greenhouse.metadata["authorization"] == f"Bearer {first}"
        garden.office.access_token = second = access_token(60, "plants:read")
        # It begins anew with where it is, as any stream does.
        assert [(await next_event(reader))["id"] for _ in range(3)] == ["7", "8", "9"]
        assert garden.greenhouse.metadata["authorization"] == f"Bearer {second}"
        writer.close()


async def test_who_may_do_less_is_judged_anew(garden: Garden) -> None:
    garden.office.access_token = access_token(60, "plants:read", "plants:write")
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, token=TOKEN)
        await next_event(reader)
        garden.greenhouse.fails_with = PermissionDenied("no", reason="SCOPE_MISSING")
        garden.office.access_token = access_token(60, "plants:write")
        told = await problem(reader)
        assert (told["status"], told["reason"]) == (403, "SCOPE_MISSING")
        writer.close()


async def test_while_nobody_can_tell_a_stream_goes_on_for_as_long_as_its_access_token(garden: Garden) -> None:
    garden.office.access_token = access_token(2)
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, token=TOKEN)
        await next_event(reader)
        garden.office.fails_with = Unavailable("away")
        began = time.monotonic()
        told = await problem(reader)
        assert time.monotonic() - began > 0.5
        assert (told["status"], told["reason"]) == (503, "UNAVAILABLE")
        writer.close()


async def test_a_stream_whose_token_stays_good_is_left_alone(garden: Garden) -> None:
    async with served(garden) as gateway:
        reader, writer, _ = await begun(gateway, token=TOKEN)
        await next_event(reader)
        exchanged = []

        async def has_asked() -> bool:
            garden.office.access_token = f"{ACCESS_TOKEN}{len(exchanged)}"
            exchanged.append(None)
            return len(exchanged) > 30

        await await_until(has_asked)
        assert len(garden.greenhouse.requests) == 1
        assert not garden.greenhouse.watch_ended.is_set()
        writer.close()

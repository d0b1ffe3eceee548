"""Opaque tokens for access tokens."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc

from services.chassis import auth, call
from services.chassis.auth import AccessTokens, TokenExchange
from services.chassis.channel import open_channel
from services.chassis.concerns import Concerns
from services.chassis.errors import DeadlineExceeded, Unauthenticated, Unavailable
from services.chassis.policy import policies
from tests.support.grpc import serve_in_process
from tests.support.waiting import await_until


class Office(auth_service_pb2_grpc.AuthServiceServicer):
    """Exchanges every token but those that begin with `bad`; may be told to wait first."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.opened = asyncio.Event()
        self.opened.set()
        self.failure: Exception | None = None

    async def ExchangeToken(self, request: Any, context: Any) -> Any:
        self.asked.append(request.token)
        number = len(self.asked)
        await self.opened.wait()
        if self.failure is not None:
            raise self.failure
        if request.token.startswith("bad"):
            raise Unauthenticated("the token is not valid", reason="TOKEN_INVALID")
        return auth_service_pb2.ExchangeTokenResponse(access_token=f"access-{number}")


@pytest.fixture
async def office() -> Office:
    return Office()


@pytest.fixture
async def exchange(office: Office, tmp_path: Any) -> AsyncIterator[TokenExchange]:
    verifier = auth.Verifier(tmp_path / "jwks.json", None)  # type: ignore[arg-type]  # nobody sends it a token
    server = grpc.aio.server(interceptors=[Concerns(policies([auth_service_pb2.DESCRIPTOR]), verifier)])
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(office, server)
    async with serve_in_process(server) as address, open_channel(address) as channel:
        yield TokenExchange(channel)


async def test_an_answer_is_remembered_for_four_seconds(
    office: Office, exchange: TokenExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(auth.time, "monotonic", lambda: now)
    assert await exchange.exchange("good") == "access-1"
    now += 4.0
    assert await exchange.exchange("good") == "access-1"
    now += 0.01
    assert await exchange.exchange("good") == "access-2"
    assert office.asked == ["good", "good"]


async def test_callers_at_the_same_time_share_one_question(office: Office, exchange: TokenExchange) -> None:
    office.opened.clear()
    asking = [asyncio.create_task(exchange.exchange("good")) for _ in range(20)]
    await await_until(lambda: office.asked)
    office.opened.set()
    assert set(await asyncio.gather(*asking)) == {"access-1"}
    assert office.asked == ["good"]


async def test_different_tokens_have_different_answers(office: Office, exchange: TokenExchange) -> None:
    one, other = await asyncio.gather(exchange.exchange("one"), exchange.exchange("other"))
    assert one != other
    assert sorted(office.asked) == ["one", "other"]


async def test_a_refusal_reaches_everybody_and_is_not_remembered(office: Office, exchange: TokenExchange) -> None:
    office.opened.clear()
    asking = [asyncio.create_task(exchange.exchange("bad")) for _ in range(3)]
    await await_until(lambda: office.asked)
    office.opened.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unauthenticated] * 3
    with pytest.raises(Unauthenticated):
        await exchange.exchange("bad")
    assert office.asked == ["bad", "bad"]


async def test_an_outage_is_not_remembered(office: Office, exchange: TokenExchange) -> None:
    office.failure = Unavailable("closed for lunch")
    with pytest.raises(Unavailable):
        await exchange.exchange("good")
    office.failure = None
    assert await exchange.exchange("good") == "access-2"


async def test_who_asked_first_may_leave_without_harm_to_the_others(office: Office, exchange: TokenExchange) -> None:
    office.opened.clear()
    first, second = (asyncio.create_task(exchange.exchange("good")) for _ in range(2))
    await await_until(lambda: office.asked)
    first.cancel()
    office.opened.set()
    assert await second == "access-1"
    assert first.cancelled()
    assert office.asked == ["good"]


async def test_who_asked_first_may_be_in_a_hurry_without_harm_to_the_others(
    office: Office, exchange: TokenExchange
) -> None:
    office.opened.clear()

    async def hurried() -> str:
        loop = asyncio.get_running_loop()
        call.current.set(call.Call("/a/b", expires_at=loop.time() + 0.1))
        async with asyncio.timeout(0.1):
            return await exchange.exchange("good")

    first = asyncio.create_task(hurried())
    await await_until(lambda: office.asked)
    second = asyncio.create_task(exchange.exchange("good"))
    with pytest.raises((TimeoutError, DeadlineExceeded)):
        await first
    office.opened.set()
    assert await second == "access-1"


async def test_a_failure_that_nobody_waits_for_any_more_is_silent(office: Office, exchange: TokenExchange) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    office.opened.clear()
    asking = asyncio.create_task(exchange.exchange("bad"))
    await await_until(lambda: office.asked)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    office.opened.set()
    await await_until(lambda: not exchange._answers)
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_memory_is_bounded(exchange: TokenExchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", 5)
    for number in range(12):
        await exchange.exchange(f"good-{number}")
    assert len(exchange._answers) == 5


async def test_a_process_calls_others_under_its_own_name(office: Office, exchange: TokenExchange) -> None:
    assert await AccessTokens(exchange, "mine").current() == "access-1"
    assert office.asked == ["mine"]

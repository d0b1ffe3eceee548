"""How often one caller may ask."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import pytest

from services.chassis.config import ConfigurationError
from services.gateway.rate_limit import RateLimit
from tests.support.valkey import stream
from tests.unit.gateway.garden import OWN_JWT, TOKEN, Contract, Garden, open_garden

Open = Callable[..., AbstractAsyncContextManager[Garden]]
# Longer than a test, so that none of them meets the end of a window.
RATE = "3/hour"


def caller(garden: Garden, token: str = TOKEN, host: str = "10.0.0.1") -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx2.ASGITransport(garden.app, client=(host, 1))
    return httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)


async def statuses(client: httpx2.AsyncClient, count: int, path: str = "/plants/") -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


async def test_who_asks_too_often_is_told_when_to_come_back(contract: Contract) -> None:
    async with open_garden(contract, rate_limit=RATE) as garden, caller(garden) as client:
        # The first one is its address's, because nobody knew its token yet.
        assert await statuses(client, 4) == [200] * 4
        answer = await client.get("/plants/")
    assert (answer.status_code, answer.json()["reason"]) == (429, "TOO_MANY_REQUESTS")
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
    assert answer.headers["ratelimit-policy"] == '"caller";q=3;w=3600'
    assert answer.headers["ratelimit"] == f'"caller";r=0;t={answer.headers["retry-after"]}'
    assert "x-request-id" in answer.headers
    assert len(garden.greenhouse.requests) == 4


async def test_callers_of_one_address_do_not_pay_for_each_other(contract: Contract) -> None:
    async with (
        open_garden(contract, rate_limit=RATE) as garden,
        caller(garden) as one,
        caller(garden, OWN_JWT) as other,
    ):
        assert await statuses(one, 1) == [200]
        # Its JWT is good, for the backend has taken it.
        assert await statuses(other, 1) == [200]
        assert await statuses(one, 4) == [200, 200, 200, 429]
        assert await statuses(other, 4) == [200, 200, 200, 429]


async def test_a_caller_is_the_same_from_every_address(contract: Contract) -> None:
    async with (
        open_garden(contract, rate_limit=RATE) as garden,
        caller(garden) as here,
        caller(garden, host="10.0.0.2") as there,
    ):
        assert await statuses(here, 3) == [200] * 3
        assert await statuses(there, 2) == [200, 429]


async def test_made_up_tokens_are_counted_by_address(contract: Contract) -> None:
    async with open_garden(contract, rate_limit=RATE) as garden, caller(garden) as good:
        assert await statuses(good, 1) == [200]
        for number in range(2):
            async with caller(garden, f"baton_made_up_{number}") as bad:
                assert await statuses(bad, 1) == [401]
        async with caller(garden, "baton_made_up_again") as bad, caller(garden, "") as nobody:
            assert await statuses(bad, 1) == [429]
            assert await statuses(nobody, 1, "/docs") == [429]
        # Those who are known go on.
        assert await statuses(good, 1) == [200]


async def test_a_bad_request_does_not_prove_a_token(contract: Contract) -> None:
    async with open_garden(contract, rate_limit=RATE) as garden:
        for number in range(3):
            async with caller(garden, f"made.up.{number}") as stranger:
                assert await statuses(stranger, 1, "/plants/?what=is") == [400]
        async with caller(garden, "made.up.again") as stranger:
            assert await statuses(stranger, 1, "/plants/?what=is") == [429]


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/ready"])
async def test_who_watches_is_never_turned_away(contract: Contract, path: str) -> None:
    async with open_garden(contract, rate_limit="1/hour") as garden, caller(garden, "") as client:
        assert await statuses(client, 2, "/docs") == [200, 429]
        assert await statuses(client, 3, path) == [200] * 3


async def test_it_can_be_off(contract: Contract) -> None:
    async with open_garden(contract, rate_limit="off") as garden, caller(garden) as client:
        assert await statuses(client, 20) == [200] * 20


async def test_gateways_count_together(contract: Contract, tmp_path: Path) -> None:
    with stream(tmp_path) as server:
        settings = {"rate_limit": RATE, "rate_limit_storage": server.url}
        async with (
            open_garden(contract, **settings) as garden,
            open_garden(contract, **settings) as other,
            caller(garden) as here,
            caller(other) as there,
        ):
            assert await statuses(here, 3) == [200] * 3
            assert await statuses(there, 3) == [200, 200, 429]
            assert await statuses(here, 1) == [429]
        with server.client() as client:
            kept = b"".join(client.keys("*"))
        assert kept.startswith(b"{LIMITS") or b"baton:rate" in kept
        assert TOKEN.encode() not in kept


async def test_a_storage_that_is_away_stops_nobody(
    contract: Contract, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stream(tmp_path) as server:
        async with (
            open_garden(contract, rate_limit=RATE, rate_limit_storage=server.url) as garden,
            caller(garden) as client,
        ):
            assert await statuses(client, 1) == [200]
            server.stop()
            with caplog.at_level(logging.WARNING):
                # Now it counts for itself.
                assert await statuses(client, 4) == [200, 200, 200, 429]
            server.start()
    # It does not ask again at once: whoever waits for it would wait every time.
    assert [record.getMessage() for record in caplog.records].count("rate_limit_storage_away") == 1


@pytest.mark.parametrize("rates", ["often", "10", "1/fortnight", ""])
def test_rates_that_are_none_are_refused(rates: str) -> None:
    with pytest.raises(ConfigurationError, match="BATON_RATE_LIMIT"):
        RateLimit(rates)


@pytest.mark.parametrize("url", ["memcached://x", "somewhere", "redis://x:port"])
def test_storages_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BATON_RATE_LIMIT_STORAGE"):
        RateLimit("1/second", url)

"""What browsers are told."""

import httpx2
import pytest

from services.chassis.config import ConfigurationError
from services.gateway.browsers import Browsers
from tests.unit.gateway.garden import TOKEN, Contract, Garden, open_garden

ORIGIN = "https://console.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}


def client_of(garden: Garden) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(garden.app), base_url="http://gateway", headers=headers)


def told(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_no_origin_may_call_unless_it_is_named(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/plants/", headers={"Origin": ORIGIN})
    assert (answer.status_code, told(answer)) == (200, {})
    assert "vary" not in answer.headers
    refused = await client.options("/plants", headers=PREFLIGHT)
    assert (refused.status_code, told(refused)) == (405, {})


async def test_a_named_origin_may_call(contract: Contract) -> None:
    async with (
        open_garden(contract, cors_origins=f"http://localhost:5173, {ORIGIN}") as garden,
        client_of(garden) as client,
    ):
        asked = await client.options("/plants", headers=PREFLIGHT | {"Authorization": ""})
        answer = await client.get("/plants/", headers={"Origin": ORIGIN})
        failed = await client.get("/plants/none", headers={"Origin": ORIGIN})
        nowhere = await client.options("/nowhere", headers=PREFLIGHT)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert {"authorization", "idempotency-key", "last-event-id"} <= set(
        asked.headers["access-control-allow-headers"].split(", ")
    )
    assert asked.headers["access-control-max-age"] == "600"
    # Tokens are sent by whoever has them, never by the browser on its own.
    assert "access-control-allow-credentials" not in asked.headers
    for one in (answer, failed):
        assert one.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in one.headers["access-control-expose-headers"]
    assert (failed.status_code, nowhere.status_code) == (404, 404)
    assert {one.headers["vary"] for one in (asked, answer, failed, nowhere)} == {"Origin"}


@pytest.mark.parametrize(
    "origin", ["https://console.example.evil", "http://console.example", "null", "https://CONSOLE.example"]
)
async def test_an_origin_is_named_exactly(contract: Contract, origin: str) -> None:
    async with open_garden(contract, cors_origins=ORIGIN) as garden, client_of(garden) as client:
        answer = await client.get("/plants/", headers={"Origin": origin})
        refused = await client.options("/plants", headers=PREFLIGHT | {"Origin": origin})
        unasked = await client.get("/plants/")
    assert (told(answer), told(refused), told(unasked)) == ({}, {}, {})
    assert {one.headers["vary"] for one in (answer, refused, unasked)} == {"Origin"}


@pytest.mark.parametrize("origins", ["*", "console.example", "https://console.example/", "https://a.example,ftp://b"])
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ConfigurationError, match="BATON_CORS_ORIGINS"):
        Browsers(origins, https=False)


@pytest.mark.parametrize(
    "path", ["/plants/", "/plants/none", "/nowhere", "/health", "/openapi.json", "/docs", "/redoc"]
)
async def test_every_answer_is_marked(client: httpx2.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"] or path in ("/docs", "/redoc")
    assert "strict-transport-security" not in headers
    assert all(len(headers.get_list(name)) == 1 for name in headers)


async def test_browsers_are_kept_on_https_where_there_is_https(contract: Contract) -> None:
    async with open_garden(contract, https=True) as garden, client_of(garden) as client:
        answer = await client.get("/plants/")
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"

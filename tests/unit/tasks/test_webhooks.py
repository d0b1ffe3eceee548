"""When a delivery is tried again, and how a request to a webhook is signed."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.tasks import webhook_sender
from services.tasks.models.webhook import MAX_ATTEMPTS, Attempt, wait_after
from services.tasks.webhook_sender import WebhookSender
from tests.support.http_server import HttpServer, falls_silent_after, said
from tests.support.resolver import FakeResolver

NEW, OLD = "whsec_" + "bmV3" * 8, "whsec_" + "b2xk" * 8
_DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "webhooks.md"
PUBLISHED = datetime(2026, 3, 1, 3, 0, 0, 250000, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer().serving() as one:
        yield one


def sender() -> WebhookSender:
    return WebhookSender(Egress(Guard(allowed.parse("loopback"))))


def attempt(url: str, *secrets: str, payload: object = None) -> Attempt:
    data = {"run_id": "r", "n": 1.5} if payload is None else payload
    return Attempt("a-delivery", "a-webhook", "a-lease", 1, url, secrets or (NEW,), "run.failed", data, PUBLISHED)  # type: ignore[arg-type]


def test_waits_grow_until_a_delivery_is_given_up() -> None:
    waits = [wait_after(attempts, timedelta(), lambda: 0.0) for attempts in range(1, MAX_ATTEMPTS + 1)]
    assert [wait and wait.total_seconds() / 60 for wait in waits] == [
        5 / 60, 5, 30, 2 * 60, 5 * 60, 10 * 60, 14 * 60, 20 * 60, 24 * 60, None,
    ]  # fmt: skip


def test_waits_are_up_to_a_fifth_longer_and_at_least_what_was_asked_for() -> None:
    assert wait_after(1, timedelta(), lambda: 1.0) == timedelta(seconds=6)
    assert wait_after(1, timedelta(hours=1), lambda: 1.0) == timedelta(hours=1)
    assert wait_after(5, timedelta(hours=1), lambda: 0.0) == timedelta(hours=5)
    assert wait_after(MAX_ATTEMPTS, timedelta(hours=1)) is None


async def test_a_request_is_signed_so_that_anybody_with_the_secret_can_check_it(server: HttpServer) -> None:
    server.answers["/hook"] = said(204)
    answered = await sender().send(attempt(server.url("/hook")))
    assert (answered.status, answered.error) == (204, "")
    (asked,) = server.asked
    assert asked.method == "POST"
    told = Webhook(NEW).verify(asked.body, asked.headers)
    assert told == {
        "type": "run.failed",
        "timestamp": "2026-03-01T03:00:00.250000Z",
        "data": {"run_id": "r", "n": 1.5},
    }
    assert asked.headers["webhook-id"] == "a-delivery"
    assert asked.headers["content-type"] == "application/json"
    assert not [name for name in asked.headers if name.startswith(("trace", "baggage", "cookie", "authorization"))]
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(asked.body, asked.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(asked.body + b" ", asked.headers)


async def test_while_secrets_change_both_sign(server: HttpServer) -> None:
    server.answers["/hook"] = said(200)
    await sender().send(attempt(server.url("/hook"), NEW, OLD))
    (asked,) = server.asked
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(asked.body, asked.headers)["type"] == "run.failed"


async def test_whatever_json_holds_is_signed_as_it_is_sent(server: HttpServer) -> None:
    server.answers["/hook"] = said(200)
    payload = {"text": 'grüße 🎉\u2028 "quoted"', "nested": [{"null": None}, True, 0.1]}
    await sender().send(attempt(server.url("/hook"), payload=payload))
    (asked,) = server.asked
    assert Webhook(NEW).verify(asked.body, asked.headers)["data"] == payload
    assert orjson.loads(asked.body)["data"] == payload


@pytest.mark.parametrize(
    ("answer", "status", "error", "seconds"),
    [
        (said(500, b"it is\n broken\x00"), 500, "answered 500: it is broken", 0),
        (said(404), 404, "answered 404", 0),
        (said(302, location="/elsewhere"), 302, "answered 302, and redirects are not followed", 0),
        (said(304), 304, "answered 304, and redirects are not followed", 0),
        (said(429, retry_after="120"), 429, "answered 429", 120),
        (said(503, retry_after="99999"), 503, "answered 503", 3600),
        (said(500, retry_after="120"), 500, "answered 500", 0),
        (said(410, b"gone"), 410, "answered 410: gone", 0),
        (b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nshort", 500, "answered 500", 0),
        (b"no HTTP\r\n\r\n", None, "the connection broke: ", 0),
    ],
)
async def test_what_is_no_success(
    server: HttpServer, answer: bytes, status: int | None, error: str, seconds: int
) -> None:
    server.answers["/hook"] = answer
    answered = await sender().send(attempt(server.url("/hook")))
    assert answered.status == status
    assert answered.error.startswith(error)
    assert answered.error == error or status is None
    assert answered.retry_after == timedelta(seconds=seconds)
    assert answered.is_gone is (status == 410)
    assert [asked.target for asked in server.asked] == ["/hook"]


async def test_of_a_long_answer_little_is_kept(server: HttpServer) -> None:
    server.answers["/hook"] = said(500, b"x" * 100_000)
    answered = await sender().send(attempt(server.url("/hook")))
    assert answered.error == ("answered 500: " + "x" * 500)[:500]


async def test_nobody_waits_for_ever(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "TIMEOUT_SECONDS", 0.2)
    server.answers["/silent"] = falls_silent_after(b"")
    answered = await sender().send(attempt(server.url("/silent")))
    assert (answered.status, answered.error) == (None, "no answer within 0.2 s")
    server.answers["/half"] = falls_silent_after(b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nsh")
    answered = await sender().send(attempt(server.url("/half")))
    assert (answered.status, answered.error) == (500, "answered 500, and then: no answer within 0.2 s")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "192.168.1.1"])
async def test_what_is_not_public_is_not_reached(server: HttpServer, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    for url in (f"https://{host}:{server.port}/hook", f"https://hook.example:{server.port}/hook"):
        names = {"hook.example": [address]}
        egress = Egress(Guard(allowed.parse(""), FakeResolver(names)))
        answered = await WebhookSender(egress).send(attempt(url))
        assert (answered.status, answered.error[:10]) == (None, "is refused")
    assert server.connections == 0


def test_an_attempt_shows_neither_url_nor_secret() -> None:
    shown = repr(attempt("https://hook.example/a-secret-path"))
    assert "secret-path" not in shown
    assert "whsec" not in shown


async def test_the_receiver_of_the_documentation_takes_what_is_sent(
    server: HttpServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/hook"] = said(204)
    await sender().send(attempt(server.url("/hook")))
    (asked,) = server.asked
    (example,) = re.findall(r"```python\n(.*?)```", _DOCUMENTATION.read_text(), re.DOTALL)
    seen: set[str] = set()
    names: dict[str, Any] = {"remember": lambda delivery_id: delivery_id not in seen}
    exec(example.replace("whsec_...", NEW), names)
    receive = names["receive"]
    assert receive(asked.body, asked.headers) == 204
    assert "run.failed" in capsys.readouterr().out
    seen.add("a-delivery")
    assert receive(asked.body, asked.headers) == 204
    assert receive(asked.body + b" ", asked.headers) == 400
    assert not capsys.readouterr().out

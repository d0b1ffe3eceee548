"""Canaries: secrets of every kind go where they are meant to, and are told by no log, answer, trace or table.

What has to be kept or shown is in KEPT and SHOWN, with the reason; the lists are exact.
"""

import base64
import json
import secrets
import sqlite3
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import requests

from services.supervisor.home import Home
from tests.e2e.test_authorisation import METHODS
from tests.e2e.test_secrets import provide
from tests.support import databases
from tests.support.baton import ROOT, Baton, task
from tests.support.otlp import Receiver, otlp_receiver
from tests.support.tables import dump
from tests.support.waiting import wait_until

MARK = "no-secret-this-is"
"""Goes wherever a canary goes: whoever finds nothing of a canary has looked at the right places."""

KEPT: Mapping[str, Mapping[str, str]] = {
    "a tool server's env": {"tasks.tool_servers.env": "the worker starts the server with it"},
    "a tool server's url": {"tasks.tool_servers.url": "the worker calls it"},
    "a webhook's url": {"tasks.webhooks.url": "events are sent there"},
    "an agent's webhook_url": {
        "sessions.agents.webhook_url": "it is the agent's, and read and changed there",
        "tasks.webhooks.url": "events are sent there",
    },
    "a webhook's secret": {"tasks.webhooks.previous_secret": "requests are signed with it for a day after a rotation"},
    "a webhook's next secret": {"tasks.webhooks.secret": "requests are signed with it"},
}
"""The columns that hold a canary, and why."""
SHOWN: Mapping[str, Mapping[str, str]] = {
    "a token": {"POST /agents/{id}/tokens": "shown this once"},
    "an agent's secret": {"POST /agents/{id}/credentials": "shown this once"},
    "a refresh token": {"POST /agents/auth/token": "shown this once"},
    "an access token": {"POST /agents/auth/token": "shown this once"},
    "a webhook's secret": {"POST /webhooks": "shown this once"},
    "a webhook's next secret": {"POST /webhooks/{id}/rotate-secret": "shown this once"},
    "a webhook's url": {
        "POST /webhooks": "to whoever has just said it",
        "POST /webhooks/{id}/rotate-secret": "the answer has the webhook",
        "GET /webhooks": "to those who may change it",
    },
    "an agent's webhook_url": {
        "GET /list_agents": "as GET /agents",
        "POST /agents": "to whoever has just said it",
        "GET /agents": "to those who may read agents",
        "GET /webhooks": "to those who may administer webhooks",
    },
    "a tool server's url": {
        "POST /tool-servers": "to whoever has just said it",
        "GET /tool-servers": "to those who may administer tools",
    },
}
"""The requests whose answers have a canary, and why. Any other one is to tell none, whoever makes it."""


class Listening(Baton):
    """A Baton of which every answer is kept."""

    def __init__(self, home: Path, **environment: str) -> None:
        super().__init__(home, **environment)
        self.answers: dict[str, bytes] = defaultdict(bytes)
        """Status, headers and bodies, by method and path; ids are written `{id}`."""

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> requests.Response:
        answer = super().call(method, path, body, token=token, **headers)
        parts = path.partition("?")[0].split("/")
        place = "/".join("{id}" if part.count("-") == 4 else part for part in parts)
        self.answers[f"{method} {place}"] += f"{answer.status_code} {answer.headers}\n".encode() + answer.content
        return answer


@dataclass
class Canaries:
    """The secrets by what they are, and all places that may have heard of one."""

    baton: Listening
    known: dict[str, str] = field(default_factory=dict)

    def new(self, what: str) -> str:
        """A new one with characters that every encoding writes in another way, and that headers may have."""
        self.known[what] = f"{secrets.token_urlsafe(12)}+/=~{secrets.token_urlsafe(12)}"
        return self.known[what]

    def in_path(self, what: str) -> str:
        """A new one that may stand in a URL."""
        self.known[what] = secrets.token_urlsafe(24)
        return self.known[what]

    def found(self, places: Mapping[str, bytes]) -> set[tuple[str, str]]:
        """Which of them is where."""
        return {
            (what, place)
            for what, value in self.known.items()
            for form in forms(value)
            for place, told in places.items()
            if form in told
        }


def forms(value: str) -> Iterator[bytes]:
    """A secret as it is, as JSON has it, percent-encoded, in hex, and in base64 wherever it begins."""
    data = value.encode()
    for text in (value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""), data.hex(), data.hex().upper()):
        yield text.encode()
    for before in range(3):
        # The characters that do not depend on what stands around.
        inner = base64.b64encode(bytes(before) + data)[4 if before else 0 : -4]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


@contextmanager
def echoing() -> Iterator[str]:
    """The URL of a server that repeats what it was asked, with the status that the path begins with."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            status = int(self.path.split("/")[1].partition("?")[0])
            body = b"" if status == 204 else f"{MARK}: cannot {self.path} with {self.headers} {sent!r}".encode()
            self.send_response(status)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever asked may have been killed
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", databases.ENGINES)
def test_no_canary_is_told(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        receiver, url = stack.enter_context(otlp_receiver()), stack.enter_context(echoing())
        environment = {
            "BATON_DEMO": "0",
            "BATON_LOG_LEVEL": "DEBUG",
            "BATON_EGRESS_ALLOW": "loopback",
            "BATON_GATEWAY_TIMEOUT_SECONDS": "5",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        home = tmp_path / "home"
        database_url = f"sqlite:///{home}"
        if engine == "postgres":
            server = request.getfixturevalue("postgres")
            environment["DATABASE_URL"] = database_url = stack.enter_context(databases.postgres_database(server))
        baton = Listening(home, **environment)
        stack.callback(baton.stop)
        baton.start()
        canaries = Canaries(baton)
        callers(canaries)
        webhooks(canaries, url)
        runs(canaries, url)
        faults(canaries, database_url)
        look_around(baton)
        assert baton.stop() == 0
        check(canaries, receiver, dump(database_url))


def callers(canaries: Canaries) -> None:
    """Tokens and secrets that are used, sent where they do not belong, and sent in vain."""
    baton, known = canaries.baton, canaries.known
    url = "https://example.com/" + canaries.in_path("an agent's webhook_url")
    agent = baton.create("/agents", {"name": MARK, "scopes": ["tasks:read", "tasks:write"], "webhook_url": url})
    known["a token"] = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
    known["an agent's secret"] = baton.call("POST", f"/agents/{agent['id']}/credentials").json()["agent_secret"]
    body = {"agent_id": agent["id"], "agent_secret": known["an agent's secret"]}
    obtained = baton.call("POST", "/agents/auth/token", body, token="").json()
    known["a refresh token"], known["an access token"] = obtained["refresh_token"], obtained["access_token"]
    for token in (known["a token"], known["an access token"]):
        assert baton.call("GET", "/tasks", token=token).status_code == 200
        assert baton.call("GET", "/agents", token=token).status_code == 403
        assert baton.call("GET", f"/tasks/{agent['id']}", token=token).status_code == 404
        assert baton.call("POST", "/tasks", {"title": 1}, token=token).status_code == 400
    for what in ("a token", "an agent's secret", "a refresh token"):
        # Mistyped, and in the wrong place.
        for field_name in ("refresh_token", "agent_secret"):
            for wrong in (known[what], known[what][:-1], known[what] * 9, [known[what]], {known[what]: 1}):
                path = "/agents/auth/refresh" if field_name == "refresh_token" else "/agents/auth/token"
                if (what, field_name) != ("a refresh token", "refresh_token"):
                    sent = {field_name: wrong} | ({"agent_id": MARK} if field_name == "agent_secret" else {})
                    assert baton.call("POST", path, sent, token="").status_code in (400, 401)
        assert baton.call("GET", "/tasks", token=known[what][:-1]).status_code == 401
    bad = canaries.in_path("a bad token")
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for token in (bad, f"baton_{bad}", f"{bad}.{bad}.{bad}", f"{bad} {bad}", canaries.new("a strange token")):
        for method, path, body in (("GET", "/tasks", None), ("GET", "/feed:watch", None), ("POST", "/mcp", listing)):
            assert baton.call(method, path, body, token=token).status_code == 401
    for scheme in ("Basic", "Bearer,", ""):
        assert baton.call("GET", "/tasks", token="", Authorization=f"{scheme} {bad}".strip()).status_code == 401


def webhooks(canaries: Canaries, url: str) -> None:
    """Webhooks whose receivers repeat what they are sent, and URLs that are refused."""
    baton, known = canaries.baton, canaries.known
    path = canaries.in_path("a webhook's url")
    for status in (204, 302, 404, 410, 500):
        hook = {"url": f"{url}/{status}/{path}?key={path}", "topics": ["canary.*"], "description": MARK}
        made = baton.create("/webhooks", hook)
    known["a webhook's secret"] = made["secret"].removeprefix("whsec_")
    rotated = baton.call("POST", f"/webhooks/{made['webhook']['id']}/rotate-secret", {}).json()
    known["a webhook's next secret"] = rotated["secret"].removeprefix("whsec_")
    assert baton.call("POST", "/events", {"topic": "canary.sung", "payload": {MARK: MARK}}).ok
    for one in baton.get("/webhooks")["items"]:
        if not one["agent_id"]:
            place = f"/webhooks/{one['id']}/deliveries"
            wait_until(lambda: baton.get(place)["items"][0]["last_status"])  # noqa: B023
    refused, body = canaries.in_path("a refused url"), {"name": "x", "scopes": ["tasks:read"]}
    for wrong in (f"https://{refused}:{refused}@example.com/", f"http://10.0.0.1/{refused}", f"{refused}://x", refused):
        assert baton.call("POST", "/webhooks", {"url": wrong, "topics": ["x.y"]}).status_code == 400
        assert baton.call("POST", "/agents", body | {"webhook_url": wrong}).status_code == 400
        server = {"name": "refused", "transport": "http", "url": f"http://{refused}:{refused}@example.com/{wrong}"}
        assert baton.call("POST", "/tool-servers", server).status_code == 400


def runs(canaries: Canaries, url: str) -> None:
    """Tools that are given secrets, and answer them, fail with them, log them and encode them."""
    baton, home = canaries.baton, canaries.baton.home
    provide(home, "step", canaries.new("a step's secret"), "echo.test", "plain.*", "http.request")
    provide(home, "env", canaries.new("a secret of an env"))
    env = {"PYTHONPATH": str(ROOT), "GOSSIP": f"{MARK} ${{secrets.env}}"}
    command = [sys.executable, "-m", "tests.support.plain_mcp_server"]
    baton.create("/tool-servers", {"name": "plain", "transport": "stdio", "command": command, "env": env})
    literal = {"PYTHONPATH": str(ROOT), "KEY": canaries.new("a tool server's env")}
    baton.create(
        "/tool-servers", {"name": "quiet", "transport": "stdio", "command": [*command, "dies"], "env": literal}
    )
    key = canaries.in_path("a tool server's url")
    for status in (401, 404, 500):
        server = {"name": f"far{status}", "transport": "http", "url": f"{url}/{status}/{key}?key={key}"}
        baton.create("/tool-servers", server)
    wait_until(lambda: _asked(baton))
    bad_env = {"KEY": f"${{secrets.{canaries.in_path('a misspelt secret')}-}}"}
    refused = {"name": "refused", "transport": "stdio", "command": command, "env": bad_env}
    assert baton.call("POST", "/tool-servers", refused).status_code == 400
    text = f"{MARK} ${{secrets.step}}"
    started = []
    for uses, given in (
        *((f"plain.{name}", {"text": text}) for name in ("echo", "encode", "environment", "complain", "fail")),
        *((f"plain.{name}", {"text": text}) for name in ("refuse", "gossip", "crash")),
        ("echo.test", {"text": text, "${secrets.step}": 1}),
        *(("http.request", _request(f"{url}/{status}/", text)) for status in (200, 302, 401, 404, 500)),
        ("http.request", _request("http://10.0.0.1/", text)),
        ("far500.any", {"text": text}),
    ):
        after = {"uses": "echo.test", "with": {"x": "${steps.one}"}}
        step = {"id": "one", "uses": uses, "with": given, "save_as": "one"}
        created = baton.call("POST", "/tasks", task(MARK, step, after, max_retries=0))
        if created.status_code == 201:
            started.append(baton.run_now(created.json()["id"]))
    long = task(MARK, {"uses": "plain.sleep", "with": {"seconds": 3600, "text": text}}, max_retries=0)
    running = baton.run_now(baton.create("/tasks", long)["id"])
    wait_until(lambda: baton.get(f"/runs/{running}")["status"] == "running")
    baton.kill("worker")
    baton.call("POST", f"/runs/{running}/cancel", {})
    for run_id in started:
        baton.finished(run_id, timeout=120)
        for path in (f"/runs/{run_id}/steps", f"/runs/{run_id}/explain"):
            baton.get(path)


def _asked(baton: Baton) -> bool:
    """Whether the worker has asked every server for its tools."""
    states = [one["status"] for one in baton.get("/tool-servers")["items"]]
    return all(state["last_error"] or state["tools_known_at"] for state in states)


def _request(url: str, text: str) -> dict[str, Any]:
    headers = {"Authorization": "Bearer ${secrets.step}", "X-Mark": MARK}
    return {"url": url, "method": "POST", "headers": headers, "query": {"key": "${secrets.step}"}, "text": text}


def faults(canaries: Canaries, database_url: str) -> None:
    """Answers of 500 and 504, when a database refuses to store and when a service does not answer."""
    baton, known = canaries.baton, canaries.known
    for table in ("tasks.webhooks", "tasks.tool_servers", "sessions.agents", "sessions.tokens"):
        refuse_rows(database_url, table)
    key = canaries.in_path("what could not be stored")
    env = {"KEY": key}
    for path, body in (
        ("/webhooks", {"url": f"https://example.com/{key}", "topics": ["x.y"]}),
        ("/tool-servers", {"name": "new", "transport": "stdio", "command": ["/bin/true"], "env": env}),
        ("/agents", {"name": "new", "scopes": ["tasks:read"], "webhook_url": f"https://example.com/{key}"}),
        ("/agents/auth/refresh", {"refresh_token": known["a refresh token"]}),
    ):
        assert baton.call("POST", path, body).status_code == 500, path
    with baton.standing_still("tasks"):
        assert baton.call("GET", "/tasks", token=known["a token"]).status_code == 504
        assert (
            baton.call("POST", "/webhooks", {"url": f"https://example.com/{key}", "topics": ["x.y"]}).status_code == 504
        )
    wait_until(baton.is_ready)


def refuse_rows(database_url: str, table: str) -> None:
    """Has a database find fault with every new row; PostgreSQL repeats the row when it says so."""
    context, _, name = table.partition(".")
    if database_url.startswith("sqlite:"):
        with sqlite3.connect(f"{database_url.removeprefix('sqlite:///')}/{context}.db", timeout=20) as connection:
            refusal = "BEGIN SELECT RAISE(ABORT, 'no more'); END"
            connection.execute(f"CREATE TRIGGER refuse_{name} BEFORE INSERT ON {name} {refusal}")
        connection.close()
    else:
        with psycopg.connect(database_url) as connection:
            connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT refuse CHECK (false) NOT VALID")


def look_around(baton: Baton) -> None:
    """Everything that can be read without naming anything, page by page."""
    for method in METHODS.values():
        for verb, path, _ in method.rules():
            if verb == "GET" and "{" not in path and not method.policy.HasField("event_stream"):
                more = "?limit=200" if {"limit", "cursor"} <= set(method.descriptor.input_type.fields_by_name) else ""
                answer = baton.call("GET", path + more)
                while more and answer.ok and "next_cursor" in answer.text:
                    cursor = answer.json().get("next_cursor")
                    if not cursor:
                        break
                    answer = baton.call("GET", f"{path}{more}&cursor={cursor}")


def check(canaries: Canaries, receiver: Receiver, tables: Mapping[str, bytes]) -> None:
    baton, home = canaries.baton, Home(canaries.baton.home)
    for name in ("admin_token", "worker_token", "services_token", "audit_key", "cursor_key", "database_secret"):
        canaries.known[name] = getattr(home, name).read_bytes().decode("latin-1").strip()
    canaries.known["signing_key"] = json.loads(home.signing_key.read_bytes())["d"]
    logs = {f"{path.name}": path.read_bytes() for path in home.logs.iterdir()}
    told = {**logs, "its output": "\n".join(baton.output).encode(), "OTLP": receiver.exported}
    allowed = {(what, place) for places in (SHOWN, KEPT) for what, whys in places.items() for place in whys}
    odd = sorted(canaries.found(told | baton.answers | tables) ^ allowed)
    assert not odd, "\n".join(f"{what}: {place}" for what, place in odd)
    marked = {place for place, content in (told | baton.answers | tables).items() if MARK.encode() in content}
    assert marked >= {
        "worker.log", "OTLP", "GET /runs", "GET /runs.csv", "GET /audit",
        "GET /webhooks/{id}/deliveries", "GET /runs/{id}/steps", "tasks.run_steps.output", "tasks.run_steps.error",
        "tasks.run_history.error", "tasks.webhook_deliveries.last_error", "tasks.tools.description",
        "sessions.audit_entries.after",
    }  # fmt: skip

"""A secret reaches the tool that may have it, and nothing else: no file, no answer, no span."""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartBaton
from tests.support.baton import ROOT, Baton, task
from tests.support.otlp import Receiver, otlp_receiver
from tests.support.waiting import wait_until

TOKEN = "ghp_9Qz7LmX2vT4c"
PASSWORD = 'p/ß+ "q"\'~&=0815'
NEW_TOKEN = "ghp_theNextOne5566"
# Goes wherever a secret goes, so that whoever finds nothing of the secret has looked at the right places.
CANARY = "yellow-canary"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_secret_is_found_nowhere_but_at_its_tool(database: str, start_baton: StartBaton, tmp_path: Path) -> None:
    with otlp_receiver() as receiver:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        baton = start_baton(**exporting, DB=database, BATON_LOG_LEVEL="DEBUG")
        provide(baton.home, "token", TOKEN, "echo.test", "plain.*", "notes.note")
        provide(baton.home, "password", PASSWORD)
        register(baton, tmp_path)
        answers = [*do_runs(baton), *look_around(baton)]
        wait_until(lambda: CANARY in baton.log("worker"))
        assert baton.stop() == 0
    # Nobody is told either, but the tool was given it.
    assert (tmp_path / "noted").read_text() == f"Bearer {TOKEN}\n"
    check(answers, baton.home, receiver)


@pytest.mark.timeout(120)
def test_a_rotated_secret_is_used_without_a_restart(start_baton: StartBaton, tmp_path: Path) -> None:
    baton = start_baton()
    register(baton, tmp_path)
    created = baton.create("/tasks", task("Notes", {"uses": "notes.note", "with": {"text": "${secrets.token}"}}))
    failed = baton.finished(baton.run_now(created["id"]))
    assert (failed["status"], failed["error"]["class"]) == ("failed", "template")
    assert "there is no secret token" in failed["error"]["message"]
    for value in (TOKEN, NEW_TOKEN):
        provide(baton.home, "token", value, "notes.*")
        assert baton.finished(baton.run_now(created["id"]))["status"] == "succeeded"
    assert (tmp_path / "noted").read_text().splitlines() == [TOKEN, NEW_TOKEN]


def provide(home: Path, name: str, value: str, *tools: str) -> None:
    """What an operator does: writes beside, and moves into place."""
    folder = home / "secrets"
    if tools:
        (folder / f"{name}.tools").write_text("\n".join(tools))
    (folder / ".new").write_text(f"{value}\n")
    (folder / ".new").replace(folder / name)


def register(baton: Baton, folder: Path) -> None:
    def server(name: str, module: str, *arguments: str, **env: str) -> None:
        command = [sys.executable, "-m", f"tests.support.{module}", *arguments]
        env = {"PYTHONPATH": str(ROOT), **env}
        baton.create("/tool-servers", {"name": name, "transport": "stdio", "command": command, "env": env})

    server("notes", "effects_server", str(folder / "noted"))
    server("plain", "plain_mcp_server", PASSWORD="x ${secrets.password}", GOSSIP=f"{CANARY} ${{secrets.token}}")


def do_runs(baton: Baton) -> Iterator[str]:
    """Runs that do what should not be done with a secret; the answers tell how they ended."""
    text = f"{CANARY} ${{secrets.token}}"
    for uses, status in (
        ("echo.test", "succeeded"),
        ("plain.echo", "succeeded"),
        ("plain.environment", "succeeded"),
        ("plain.complain", "succeeded"),
        ("plain.fail", "failed"),
        ("plain.refuse", "failed"),
        ("plain.gossip", "failed"),
    ):
        step = {"id": "one", "uses": uses, "with": {"text": text, "word": f"no {text}"}, "save_as": "one"}
        yield from run(baton, status, step, {"id": "two", "uses": "echo.test", "with": {"again": "${steps.one}"}})
    yield from run(baton, "succeeded", {"uses": "notes.note", "with": {"text": "Bearer ${secrets.token}"}})
    yield from run(baton, "failed", {"uses": "echo.test", "with": {"text": "${secrets.password}"}})


def run(baton: Baton, status: str, *steps: dict[str, Any]) -> Iterator[str]:
    body = task("Secretive", *steps, max_retries=0)
    preview = baton.call("POST", "/tasks:preview", body)
    created = baton.call("POST", "/tasks", body)
    assert (preview.status_code, created.status_code) == (200, 201), created.text
    assert preview.json()["steps"][0]["with"] == steps[0]["with"]
    yield from (preview.text, created.text)
    run_id = baton.run_now(created.json()["id"])
    ended = baton.finished(run_id)
    assert ended["status"] == status, ended
    yield json.dumps(ended)
    for path in (f"/runs/{run_id}/steps", f"/runs/{run_id}/explain"):
        yield baton.call("GET", path).text


def look_around(baton: Baton) -> Iterator[str]:
    for path in ("/tool-servers", "/tools?limit=200", "/tasks", "/runs?limit=200", "/runs.csv", "/health"):
        answer = baton.call("GET", path)
        assert answer.status_code == 200
        yield answer.text


def check(answers: list[str], home: Path, receiver: Receiver) -> None:
    files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.parent != home / "secrets"}
    told = {"the answers": "\n".join(answers).encode(), "the spans": receiver.exported, **files}
    for needle in (form for secret in (TOKEN, PASSWORD) for form in forms(secret)):
        assert [place for place, content in told.items() if needle in content] == []
    sung = {str(place) for place, content in told.items() if CANARY.encode() in content}
    assert {"the answers", "the spans", str(home / "logs" / "worker.log")} <= sung
    assert any("tasks.db" in place or "/postgres/" in place for place in sung)


def forms(secret: str) -> list[bytes]:
    quoted = json.dumps(secret)[1:-1].encode()
    inner = base64.b64encode(secret.encode()).rstrip(b"=")[:-1]
    return [secret.encode(), quoted, json.dumps(secret, ensure_ascii=False)[1:-1].encode(), inner]

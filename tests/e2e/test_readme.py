"""The documents, held to what they say.

The tour of the README is run as its reader runs it: every block, top to bottom, in one shell, on an empty home.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.baton import ROOT, Baton

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = ("services", "migrations")
SOURCES = (*CODE, "protos", "deploy", "tests")
_NEXT_BLOCK = "---- next block"
_TIMEOUT_SECONDS = 90


@pytest.fixture(scope="module")
def fresh_baton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    """A Baton as `make run` starts it on a new machine, which nobody but this module uses."""
    started = Baton(tmp_path_factory.mktemp("readme") / "home").start()
    try:
        yield started
    finally:
        started.stop()


def test_make_run_prints_what_the_readme_shows(fresh_baton: Baton) -> None:
    [shown] = blocks(section("Run it"), "text")
    seen = [
        line.replace(fresh_baton.url, "http://127.0.0.1:8080").replace(str(fresh_baton.home.resolve()), "…/.baton")
        for line in fresh_baton.output
    ]
    assert without_revisions(seen) == without_revisions(shown.splitlines())


@pytest.mark.timeout(180)
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="the tour is for a shell with curl")
def test_the_tour_does_what_it_says(fresh_baton: Baton, tmp_path: Path) -> None:
    tour = section("A five-minute tour")
    outputs = run(blocks(tour, "sh"), fresh_baton, tmp_path)
    assert len(outputs) == 12
    setup, demo, created, ran, previewed, asked, reported, exported, docs, mistake, refused, repeated = outputs

    assert setup == ""
    runs, steps = documents(demo)
    assert [(item["task"], item["status"]) for item in runs["items"]] == [("Morning briefing", "succeeded")]
    assert [step["uses"] for step in steps["items"]] == ["time.get_current_time", "time.convert_time", "git.git_log"]
    assert all(step["output"] for step in steps["items"])

    [task] = documents(created)
    assert (task["title"], task["schedule_expr"]) == ("My briefing", "0 7 * * 1-5")
    assert task["next_fire_at"]

    [finished] = documents(ran)
    assert (finished["task_id"], finished["status"]) == (task["id"], "succeeded")
    assert finished["output"].keys() == {"clock", "local", "commits"}
    assert finished["output"]["clock"]["timezone"] == "UTC"
    assert finished["output"]["local"]["target"]["timezone"] == "Europe/Chisinau"
    assert finished["output"]["commits"].startswith("Commit history:")

    [preview] = documents(previewed)
    assert (preview["valid"], preview["steps"][0]["with"]) == (True, {"text": "Report for the team"})
    assert len(preview["fire_times"]) == 20
    assert all(
        datetime.fromisoformat(time["local"]).strftime("%a %H:%M") == "Fri 17:00" for time in preview["fire_times"]
    )

    paused, explained, resumed, occurrences = documents(asked)
    assert [change["details"]["new_status"] for change in (paused, resumed)] == ["paused", "active"]
    assert explained["blockers"][0]["code"] == "task_paused"
    assert len(occurrences["next"]) == 3

    patched, page = documents(reported)
    assert (patched["status"], patched["log_excerpt"]) == ("succeeded", "40 pages, no broken link")
    assert page["items"][0] == patched

    header, *rows, line, other_line = exported[: exported.index("\n{\n")].splitlines()
    assert header == "task,status,duration_ms,trace_id"
    assert rows[0].startswith("seo.validate,succeeded,")
    assert rows[1] == f"My briefing,succeeded,{finished['duration_ms']},{finished['trace_id']}"
    assert [json.loads(text)["task"] for text in (line, other_line)] == ["seo.validate", "My briefing"]
    summary = json.loads(exported[exported.index("\n{\n") :])
    assert (summary["stats"]["total_runs"], summary["stats"]["successful_runs"]) == (3, 3)
    assert (fresh_baton.home / "runs.csv").read_text().startswith("id,task_id,task,status,")

    assert docs.splitlines() == ["200", "3.1.0"]

    [shown] = blocks(tour, "text")
    problem, status = mistake.splitlines()
    shown_problem, shown_status = shown.splitlines()
    assert problem.startswith(shown_problem.removesuffix(" ...}"))
    assert status == shown_status == "400 application/problem+json"
    assert [error["field"] for error in json.loads(problem)["errors"]] == ["schedule_expr"]
    assert [item["title"] for item in fresh_baton.get("/tasks")["items"]] == ["My briefing", "Morning briefing"]

    allowed, problem, status = refused.splitlines()
    assert (allowed, status) == ("200", "403")
    assert json.loads(problem)["reason"] == "SCOPE_MISSING"
    assert "'tasks:write'" in json.loads(problem)["detail"]

    first, second = re.split(r"(?<=})\n(?=HTTP)", repeated.strip())
    assert "idempotent-replayed: true" not in first.lower()
    assert "idempotent-replayed: true" in second.lower()
    assert first.splitlines()[-1] == second.splitlines()[-1]
    # The demo's run, the tour's, the one that was reported, and one for the two requests with one key.
    assert len(fresh_baton.get("/runs")["items"]) == 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    # Inside backticks a path may be cut short in front: `tasks/store/queue.py`.
    files = {f"/{path.relative_to(ROOT)}" for folder in SOURCES for path in (ROOT / folder).rglob("*")}
    paths = re.findall(r"`([a-z_./0-9]+\.(?:py|proto|sql|ini))`", text)
    assert [path for path in paths if not any(file.endswith(f"/{path}") for file in files)] == []


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    settings = re.compile(r"\b(?:BATON_[A-Z_]+[A-Z]|IDEMPOTENCY_TTL_SECONDS|DATABASE_URL)\b")
    code = "".join(path.read_text() for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    operations = (ROOT / "docs" / "operations.md").read_text()
    assert set(settings.findall(README + operations)) == set(settings.findall(code))


def section(title: str) -> str:
    """The text of one chapter of the README."""
    _, _, rest = README.partition(f"\n## {title}\n")
    assert rest, f"the README has no chapter {title!r}"
    return rest.partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(scripts: list[str], baton: Baton, directory: Path) -> list[str]:
    """What each block prints, all run in one bash that stops at the first command that fails."""
    script = "set -euo pipefail\n" + f"echo '{_NEXT_BLOCK}'\n".join(scripts)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "BATON_HOME": str(baton.home), "BATON_PORT": str(baton.port)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.split(f"{_NEXT_BLOCK}\n")


def documents(text: str) -> list[Any]:
    """The JSON documents that follow each other in a text."""
    decoder, found = json.JSONDecoder(), []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def without_revisions(lines: list[str]) -> list[str]:
    """Migrations come and go; which one is the newest is not the README's business."""
    return [re.sub(r"(migrated \w+ to) \d+", r"\1 ...", line) for line in lines]

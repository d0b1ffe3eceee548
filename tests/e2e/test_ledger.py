"""The run ledger: a nightly script reports what it does, people read it and decide."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from services.chassis.ids import new_id
from tests.support.baton import Baton, task

SCRIPT = Path(__file__).parent / "nightly.py"
PULL_REQUEST = "https://github.com/acme/site/pull/7"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


PLAN = [
    {"task": "seo.validate", "command": python("print('outputs_uri=https://ci/seo.json'); print('42 pages')"),
     "inputs": {"site": "https://example.com", "depth": 2}},
    {"task": "code.review", "command": python("print('reading'); print('no space left'); raise SystemExit(3)"),
     "inputs": {}},
    {"task": "dx.integrate", "command": python(f"print('opened {PULL_REQUEST}')"), "inputs": {}},
    {"task": "infra.scale", "command": python(f"print('see {PULL_REQUEST}'); raise SystemExit(1)"), "inputs": {}},
    {"task": "=cmd|'/c calc'!A1", "command": ["/nowhere/at/all"], "inputs": {}},
]  # fmt: skip
STATUSES = ["succeeded", "failed", "awaiting_approval", "failed", "failed"]


@dataclass
class Night:
    """What a night has left behind."""

    baton: Baton
    reporter: str
    exit_code: int
    tasks: list[str]

    def rows(self, **parameters: Any) -> list[Any]:
        """The night's rows in the order in which they began."""
        names = {"task": self.tasks, "limit": 200, **parameters}
        page = self.baton.get(f"/agents/tasks/paged?{urlencode(names, doseq=True)}")
        found: list[Any] = page["items"]
        return found[::-1]


def token_of(baton: Baton, name: str, *scopes: str) -> str:
    """The token of a new agent."""
    agent = baton.create("/agents", {"name": f"{name}-{new_id()}", "scopes": list(scopes)})
    token: str = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
    return token


@pytest.fixture(scope="module")
def night(baton: Baton, tmp_path_factory: pytest.TempPathFactory) -> Night:
    reporter = token_of(baton, "nightly", "runs:report", "runs:read", "approvals:decide")
    plan = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.write_text(json.dumps(PLAN))
    environment = {**os.environ, "API_BASE": baton.url, "API_TOKEN": reporter}
    done = subprocess.run([sys.executable, str(SCRIPT), str(plan)], env=environment, timeout=120, check=False)
    return Night(baton, reporter, done.returncode, [str(step["task"]) for step in PLAN])


def test_every_step_of_the_night_is_a_row(night: Night) -> None:
    rows = night.rows()
    assert night.exit_code == 1
    assert [row["task"] for row in rows] == night.tasks
    assert [row["status"] for row in rows] == STATUSES
    assert {row["run_id"] for row in rows} == {f"nightly-{rows[0]['started_at'][:10]}"}
    assert rows[0]["inputs"] == {"site": "https://example.com", "depth": 2}
    assert [row["outputs_uri"] for row in rows] == ["https://ci/seo.json", None, PULL_REQUEST, PULL_REQUEST, None]
    assert rows[1]["log_excerpt"] == "reading\nno space left"
    assert "/nowhere/at/all" in rows[4]["log_excerpt"]
    assert [row["approval_state"] for row in rows] == [None, None, "pending", None, None]
    for row in rows:
        assert row["started_at"] <= row["finished_at"] <= row["webhook_notified_at"]
        assert row["duration_ms"] >= 0
        assert row["created_at"] <= row["updated_at"]


def test_the_fields_are_those_of_the_earlier_ledger_and_two_more(night: Night) -> None:
    assert list(night.rows()[0]) == [
        "id", "task", "run_id", "status", "started_at", "finished_at", "duration_ms", "inputs", "outputs_uri",
        "log_excerpt", "approval_state", "approver", "approval_note", "webhook_notified_at", "created_at", "updated_at",
    ]  # fmt: skip


def test_pages_the_earlier_list_and_the_download_agree(night: Night) -> None:
    rows = night.rows()[::-1]
    query = urlencode({"task": night.tasks}, doseq=True)
    paged, cursor = [], ""
    while cursor is not None:
        page = night.baton.get(f"/agents/tasks/paged?{query}&limit=2&cursor={cursor}")
        paged += page["items"]
        cursor = page["next_cursor"]
    assert paged == rows
    batch = rows[0]["run_id"]
    assert night.baton.get(f"/agents/tasks/?run_id={batch}&limit=5") == rows
    assert night.baton.get(f"/agents/tasks?run_id={batch}&status=failed") == [
        r for r in rows if r["status"] == "failed"
    ]
    response = night.baton.call("GET", f"/agents/tasks/paged.csv?{query}&limit=1000&cursor=stale")
    assert response.headers["content-disposition"] == 'attachment; filename="agent_tasks.csv"'
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(response.text, newline="")))
    for line, row in zip(lines, rows, strict=True):
        assert line["task"].lstrip("'") == row["task"]
        assert (line["id"], line["status"], line["finished_at"]) == (row["id"], row["status"], row["finished_at"])
        assert line["duration_ms"] == str(row["duration_ms"])
        assert (line["outputs_uri"], line["log_excerpt"][:100]) == (row["outputs_uri"] or "", row["log_excerpt"][:100])
    assert lines[0]["task"] == "'=cmd|'/c calc'!A1"


def test_filters_are_those_of_the_earlier_ledger(night: Night) -> None:
    assert {row["task"] for row in night.rows(status=["failed", "succeeded"])} == set(night.tasks) - {"dx.integrate"}
    assert night.rows(status="awaiting_approval")[0]["task"] == "dx.integrate"
    third = night.rows()[2]["started_at"]
    assert [row["task"] for row in night.rows(since=third)][-3:] == night.tasks[2:]
    assert night.rows(since="2999-01-01") == []


def test_somebody_else_approves(night: Night) -> None:
    [waiting] = night.rows(status="awaiting_approval")
    path = f"/agents/tasks/{waiting['id']}"
    own = night.baton.call("POST", f"{path}/approve", token=night.reporter)
    assert (own.status_code, own.json()["reason"]) == (403, "APPROVER_IS_REQUESTER")
    sneaky = night.baton.call("PATCH", path, {"approval_state": "approved", "approver": "me"}, token=night.reporter)
    assert sneaky.status_code == 400
    assert {error["field"] for error in sneaky.json()["errors"]} == {"approval_state", "approver"}
    person = token_of(night.baton, "person", "approvals:decide", "runs:read")
    assert night.baton.call("PATCH", path, {"status": "succeeded"}, token=person).status_code == 403
    # As browsers send it: with a note in the query, and no body or one that says nothing.
    approved = night.baton.call("POST", f"{path}/approve?note=looks+good", {}, token=person)
    assert approved.status_code == 200, approved.text
    row = approved.json()
    assert (row["status"], row["approval_state"], row["approval_note"]) == ("succeeded", "approved", "looks good")
    assert row["approver"] not in (None, "")
    assert (row["finished_at"], row["duration_ms"]) == (waiting["finished_at"], waiting["duration_ms"])
    for verb in ("approve", "reject", "cancel"):
        again = night.baton.call("POST", f"{path}/{verb}", token=person)
        assert (again.status_code, again.json()["reason"]) == (409, "RUN_NOT_AWAITING_APPROVAL")
    assert night.baton.get(f"/runs/{waiting['id']}")["success"] is True


def test_null_clears_and_what_is_not_given_stays(night: Night) -> None:
    row = night.baton.create("/agents/tasks/", {"task": "n", "run_id": "null", "status": "running"})
    path = f"/agents/tasks/{row['id']}"
    night.baton.call("PATCH", path, {"log_excerpt": "x", "outputs_uri": "https://a"})
    changed = night.baton.call("PATCH", path, {"outputs_uri": None}).json()
    assert (changed["outputs_uri"], changed["log_excerpt"], changed["status"]) == (None, "x", "running")
    ended = night.baton.call("PATCH", path, {"status": "skipped"}).json()
    assert ended["status"] == "skipped"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/agents/tasks/", {"task": "t", "run_id": "r", "status": "exploded"}, 400, "status"),
        ("POST", "/agents/tasks/", {"task": "t", "run_id": "r"}, 400, "status"),
        ("POST", "/agents/tasks/", {"task": "t" * 65, "run_id": "r", "status": "running"}, 400, "task"),
        ("POST", "/agents/tasks/", {"task": "t", "run_id": "r", "status": "running", "started_at": "soon"}, 400,
         "started_at"),
        ("GET", "/agents/tasks/paged?limit=201", None, 400, "limit"),
        ("GET", "/agents/tasks/paged?since=soon", None, 400, "since"),
        ("GET", "/agents/tasks/paged?cursor=garbage", None, 400, "cursor"),
        ("GET", "/agents/tasks/paged.csv?limit=10001", None, 400, "limit"),
        ("GET", "/agents/tasks/?limit=1001", None, 400, "limit"),
        ("DELETE", "/agents/tasks/before", None, 400, "date"),
        ("DELETE", "/agents/tasks/before?date=soon", None, 400, "date"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(baton: Baton, method: str, path: str, body: Any, status: int, field: str) -> None:
    answer = baton.call(method, path, body)
    assert answer.status_code == status, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/agents/tasks/"),
        ("PATCH", "/agents/tasks/00000000-0000-7000-8000-000000000000"),
        ("GET", "/agents/tasks/"),
        ("GET", "/agents/tasks/paged"),
        ("GET", "/agents/tasks/paged.csv"),
        ("DELETE", "/agents/tasks/before?date=2000-01-01"),
        ("POST", "/agents/tasks/00000000-0000-7000-8000-000000000000/approve"),
    ],
)
def test_nobody_unknown_is_let_in_whatever_they_say_they_are(baton: Baton, method: str, path: str) -> None:
    claims = {"X_User_Role": "admin", "X_User_Email": "root@example.com", "X_Admin_Key": ""}
    assert baton.call(method, path, token="", **claims).status_code == 401


def test_old_runs_are_pruned_by_admins_and_live_ones_stay(night: Night) -> None:
    baton = night.baton
    bodies = [
        {"task": "old", "run_id": "1999", "status": status, "started_at": "1999-12-31T23:00:00-01:00"}
        for status in ("succeeded", "failed", "skipped", "running", "queued", "awaiting_approval")
    ]
    ids = [baton.create("/agents/tasks/", body)["id"] for body in bodies]
    path = "/agents/tasks/before?date=2000-01-01T00:00:01"
    assert baton.call("DELETE", path, token=night.reporter).status_code == 403
    edge = baton.call("DELETE", "/agents/tasks/before?date=2000-01-01").json()
    assert edge["deleted"] == 0
    answer = baton.call("DELETE", path)
    assert (answer.status_code, answer.json()) == (200, {"deleted": 3, "cutoff": "2000-01-01T00:00:01.000000Z"})
    assert [baton.call("GET", f"/runs/{run_id}").status_code for run_id in ids] == [404] * 3 + [200] * 3
    assert len(night.rows()) == len(PLAN)


def test_the_ledger_shows_what_baton_runs_itself(night: Night) -> None:
    created = night.baton.create("/tasks", task("Ledger echo", {"uses": "echo.test"}, params={"n": 1}))
    run_id = night.baton.run_now(created["id"])
    night.baton.finished(run_id)
    [row] = night.baton.get(f"/agents/tasks/paged?{urlencode({'task': 'Ledger echo'})}")["items"]
    assert (row["id"], row["status"], row["run_id"], row["inputs"]) == (run_id, "succeeded", "", {"n": 1})
    refused = night.baton.call("PATCH", f"/agents/tasks/{run_id}", {"log_excerpt": "mine"})
    assert (refused.status_code, refused.json()["reason"]) == (409, "RUN_NOT_REPORTED")


def test_the_reference_documents_the_routes(baton: Baton) -> None:
    paths = baton.call("GET", "/openapi.json", token="").json()["paths"]
    patch = paths["/agents/tasks/{id}"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    assert "update_mask" not in patch["properties"]
    assert patch["properties"]["log_excerpt"]["type"] == ["string", "null"]
    assert "requestBody" not in paths["/agents/tasks/{id}/approve"]["post"]
    assert {"/agents/tasks", "/agents/tasks/", "/agents/tasks/paged", "/agents/tasks/paged.csv"} <= set(paths)

"""The main job: create a task over REST, run it on real tools, see the run, its steps, its CSV."""

import csv
import io
import re
from typing import Any

from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def test_the_demo_has_run_on_real_tools(baton: Baton) -> None:
    wait_until(lambda: bool(baton.get("/runs?status=succeeded")["items"]))
    [briefing] = [item for item in baton.get("/tasks?limit=200")["items"] if item["title"] == "Morning briefing"]
    first = baton.get(f"/runs?task_id={briefing['id']}")["items"][-1]
    steps = baton.get(f"/runs/{first['id']}/steps")["items"]
    assert [(step["uses"], step["status"]) for step in steps] == [
        ("time.get_current_time", "succeeded"),
        ("time.convert_time", "succeeded"),
        ("git.git_log", "succeeded"),
    ]
    clock, local, commits = (step["output"] for step in steps)
    assert local["source"]["datetime"][11:16] == clock["datetime"][11:16]
    assert local["target"]["timezone"] == "Europe/Chisinau"
    assert commits.startswith("Commit history:\nCommit: ")


def test_a_task_is_created_run_and_read_back(baton: Baton) -> None:
    created = baton.create(
        "/tasks",
        task(
            "Echo twice",
            {"id": "first", "uses": "echo.test", "with": {"count": "${params.count}"}, "save_as": "first"},
            {"uses": "echo.test", "if": "steps.first.count > `5`", "with": {}},
            {"uses": "echo.test", "with": {"text": "got ${steps.first.count}", "$${": "$${kept}"}, "save_as": "second"},
            params={"count": 3},
        ),
    )
    assert UUID.fullmatch(created["id"])
    assert baton.get(f"/tasks/{created['id']}") == created

    run = baton.finished(baton.run_now(created["id"]))
    assert (run["status"], run["attempt"], run["error"]) == ("succeeded", 1, None)
    assert run["inputs"] == {"count": 3}
    assert run["output"] == {"first": {"count": 3}, "second": {"text": "got 3", "$${": "${kept}"}}
    steps = baton.get(f"/runs/{run['id']}/steps")["items"]
    assert [(step["id"], step["status"], step["position"]) for step in steps] == [
        ("first", "succeeded", 0),
        ("step_2", "skipped", 1),
        ("step_3", "succeeded", 2),
    ]


def test_a_failing_step_ends_the_run_and_says_which_and_why(baton: Baton) -> None:
    created = baton.create(
        "/tasks",
        task(
            "Fails",
            {"id": "ask", "uses": "time.convert_time", "with": {"source_timezone": "Nowhere/At_All", "time": "12:00",
                                                                 "target_timezone": "UTC"}},
            {"id": "never", "uses": "echo.test"},
        ),
    )  # fmt: skip
    run = baton.finished(baton.run_now(created["id"]))
    assert run["status"] == "failed"
    assert run["error"]["class"] == "tool"
    assert run["error"]["step_id"] == "ask"
    assert "Nowhere/At_All" in run["error"]["message"]
    assert [step["id"] for step in baton.get(f"/runs/{run['id']}/steps")["items"]] == ["ask"]


def test_a_cron_task_fires_by_itself(baton: Baton) -> None:
    every_second = task("Tick", {"uses": "echo.test"}, schedule_kind="cron", schedule_expr="* * * * * *")
    created = baton.create("/tasks", every_second)
    assert created["next_fire_at"] > created["created_at"]
    wait_until(lambda: len(baton.get(f"/runs?status=succeeded&task_id={created['id']}")["items"]) >= 2)
    due = [run["due_at"] for run in baton.get(f"/runs?task_id={created['id']}")["items"]]
    assert len(due) == len(set(due)), "a second was fired twice"


def test_a_task_for_one_instant_fires_once(baton: Baton) -> None:
    past = "2020-01-01T00:00:00Z"
    missed = baton.create("/tasks", task("Too late", schedule_kind="once", schedule_expr=past))
    soon = baton.create("/tasks", task("Now", schedule_kind="once", schedule_expr=missed["created_at"]))
    wait_until(lambda: bool(baton.get(f"/runs?status=succeeded&task_id={soon['id']}")["items"]))
    assert baton.get(f"/tasks/{soon['id']}")["next_fire_at"] is None
    assert baton.get(f"/runs?task_id={missed['id']}")["items"] == []
    assert baton.get(f"/tasks/{missed['id']}")["next_fire_at"] is None


def test_the_csv_holds_the_same_runs_as_the_list(baton: Baton) -> None:
    created = baton.create("/tasks", task("=cmd|'/c calc'!A1", {"uses": "echo.test"}))
    run_ids = [baton.run_now(created["id"]) for _ in range(3)]
    for run_id in run_ids:
        baton.finished(run_id)
    response = baton.call("GET", f"/runs.csv?task_id={created['id']}")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="runs.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    listed = baton.get(f"/runs?task_id={created['id']}")["items"]
    assert [row["id"] for row in rows] == [run["id"] for run in listed] == run_ids[::-1]
    assert {row["task"] for row in rows} == {"'=cmd|'/c calc'!A1"}
    assert [row["finished_at"] for row in rows] == [run["finished_at"] for run in listed]


def test_lists_page_through_everything_once(baton: Baton) -> None:
    created = baton.create("/tasks", task("Paged", {"uses": "echo.test"}))
    run_ids = [baton.run_now(created["id"]) for _ in range(7)]
    seen, path = [], f"/runs?task_id={created['id']}&limit=3"
    page = baton.get(path)
    while True:
        seen += [run["id"] for run in page["items"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            break
        page = baton.get(f"{path}&cursor={page['next_cursor']}")
    assert seen == run_ids[::-1]


def test_a_repeated_request_with_the_same_key_has_one_effect(baton: Baton) -> None:
    created = baton.create("/tasks", task("Once only", {"uses": "echo.test"}))
    path = f"/tasks/{created['id']}/run_now"
    first, second = (baton.call("POST", path, {}, Idempotency_Key="e2e-key") for _ in range(2))
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(baton.get(f"/runs?task_id={created['id']}")["items"]) == 1
    other = baton.create("/tasks", task("Another", {"uses": "echo.test"}))
    reused = baton.call("POST", f"/tasks/{other['id']}/run_now", {}, Idempotency_Key="e2e-key")
    assert (reused.status_code, reused.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert reused.json()["errors"][0]["field"] == "Idempotency-Key"


def test_the_build_template_can_be_read(baton: Baton) -> None:
    template = baton.get("/api/workflows/templates/build")
    assert len(template["states"]) == 12
    assert len(template["transitions"]) == 23
    assert template["initial_state"] == "discovery"


def test_the_reference_needs_no_token_and_no_network(baton: Baton) -> None:
    openapi = baton.call("GET", "/openapi.json", token="").json()
    assert openapi["openapi"].startswith("3.1")
    assert {"/tasks", "/tasks/{task_id}/run_now", "/runs.csv", "/runs:lease"} <= set(openapi["paths"])
    for page in ("/docs", "/redoc"):
        html = baton.call("GET", page, token="").text
        linked = re.findall(r'(?:src|href)="([^"]+)"', html)
        assert linked, page
        for link in linked:
            assert not link.startswith(("http:", "https:", "//")), f"{page} loads {link} from elsewhere"
            assert link.startswith("data:") or baton.call("GET", link, token="").status_code == 200, link


def _healthy(baton: Baton) -> Any:
    health = baton.call("GET", "/health", token="").json()
    return health if health["status"] == "healthy" else None


def test_health_says_who_is_there(baton: Baton) -> None:
    assert baton.call("GET", "/health/live", token="").status_code == 200
    assert baton.call("GET", "/health/ready", token="").status_code == 200
    # A loop that is behind for a moment, on a busy machine, is said to be.
    health = wait_until(lambda: _healthy(baton))
    services = {"baton.sessions.v1", "baton.tasks.v1", "baton.workflows.v1"}
    said = {f"{service}/{what}" for service in services for what in ("database", "loops")}
    said |= {f"baton.tasks.v1/{what}" for what in ("queue", "scheduler", "workers")}
    assert {check["name"] for check in health["checks"]} == services | said

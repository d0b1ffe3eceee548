"""Bad input is refused with a problem that names the field, and stores nothing."""

from typing import Any

import pytest

from tests.support.baton import Baton, task

ECHO = {"uses": "echo.test"}


def deep(levels: int) -> Any:
    nested: Any = "bottom"
    for _ in range(levels):
        nested = [nested]
    return nested


BAD_TASKS = {
    "unknown field": (task("x") | {"colour": "red"}, "colour"),
    "wrong type": (task("x") | {"title": 7}, "title"),
    "wrong type inside": (task("x") | {"payload": []}, "payload"),
    "missing title": ({"schedule_kind": "manual", "payload": {"pipeline": []}}, "title"),
    "long title": (task("x" * 201), "title"),
    "NUL in title": (task("a\x00b"), "title"),
    "unknown kind": (task("x", schedule_kind="hourly"), "schedule_kind"),
    "bad cron": (task("x", schedule_kind="cron", schedule_expr="61 * * * *"), "schedule_expr"),
    "cron that never comes true": (task("x", schedule_kind="cron", schedule_expr="0 0 30 2 *"), "schedule_expr"),
    "missing cron": (task("x", schedule_kind="cron"), "schedule_expr"),
    "bad instant": (task("x", schedule_kind="once", schedule_expr="tomorrow"), "schedule_expr"),
    "bad timezone": (task("x", timezone="Mars/Olympus"), "timezone"),
    "timezone outside": (task("x", timezone="../../etc/passwd"), "timezone"),
    "bad priority": (task("x", priority=10), "priority"),
    "no pipeline": (task("x") | {"payload": {}}, "payload.pipeline"),
    "unknown step key": (task("x", ECHO | {"retries": 3}), "payload.pipeline[0].retries"),
    "missing tool server": (task("x", {"uses": "nowhere.tool"}), "payload.pipeline[0].uses"),
    "missing tool": (task("x", ECHO, {"uses": "time.no_such_tool"}), "payload.pipeline[1].uses"),
    "missing input": (task("x", {"uses": "time.get_current_time"}), "payload.pipeline[0].with.timezone"),
    "input of the wrong type": (
        task("x", ECHO, {"uses": "time.get_current_time", "with": {"timezone": 5}}),
        "payload.pipeline[1].with.timezone",
    ),
    "not a tool": (task("x", {"uses": "echo"}), "payload.pipeline[0].uses"),
    "same id twice": (task("x", ECHO | {"id": "a"}, ECHO | {"id": "a"}), "payload.pipeline[1].id"),
    "template to a later step": (
        task("x", ECHO | {"with": {"a": ["${steps.later.b}"]}}, ECHO | {"save_as": "later"}),
        "payload.pipeline[0].with.a[0]",
    ),
    "template to an undeclared parameter": (
        task("x", ECHO | {"with": {"a": "${params.missing}"}}),
        "payload.pipeline[0].with.a",
    ),
    "template that cannot be read": (task("x", ECHO | {"with": {"a": "${steps.}"}}), "payload.pipeline[0].with.a"),
    "payload that is too deep": (task("x", ECHO | {"with": {"a": deep(60)}}), "payload"),
}


@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_bad_task_is_refused_and_not_stored(baton: Baton, name: str) -> None:
    body, field = BAD_TASKS[name]
    before = baton.get("/tasks?limit=1")["items"]
    response = baton.call("POST", "/tasks", body)
    problem = response.json()
    assert response.status_code == 400, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert field in [error["field"][: len(field)] for error in problem["errors"]], problem["errors"]
    assert problem["code"] == "INVALID_ARGUMENT"
    assert problem["instance"] == "/tasks"
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert len(problem["trace_id"]) == 32
    assert baton.get("/tasks?limit=1")["items"] == before


def test_all_faults_are_named_at_once(baton: Baton) -> None:
    body = task("x", {"uses": "nowhere.tool"}, schedule_kind="cron", schedule_expr="never", timezone="UTC")
    fields = {error["field"] for error in baton.call("POST", "/tasks", body).json()["errors"]}
    assert fields == {"schedule_expr", "payload.pipeline[0].uses"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tasks?cursor=garbage", "cursor"),
        ("/runs?cursor=AAAA", "cursor"),
        ("/runs?limit=201", "limit"),
        ("/runs?limit=many", "limit"),
        ("/runs?status=queued&status=lost", "status[1]"),
        ("/runs?colour=red", "colour"),
        ("/runs/not-a-uuid", "run_id"),
        ("/runs.csv?columns=id&columns=secrets", "columns[1]"),
    ],
)
def test_a_bad_query_is_refused(baton: Baton, path: str, field: str) -> None:
    response = baton.call("GET", path)
    assert response.status_code == 400, response.text
    assert field in [error["field"] for error in response.json()["errors"]]


def test_a_cursor_fits_only_the_list_it_was_given_out_for(baton: Baton) -> None:
    for number in range(2):
        baton.create("/tasks", task(f"Cursor {number}"))
    cursor = baton.get("/tasks?limit=1")["next_cursor"]
    assert baton.call("GET", f"/tasks?limit=1&cursor={cursor}").status_code == 200
    other = baton.call("GET", f"/tasks?limit=1&status=paused&cursor={cursor}")
    assert (other.status_code, other.json()["reason"]) == (400, "CURSOR_INVALID")


def test_a_body_over_one_mebibyte_is_refused(baton: Baton) -> None:
    response = baton.call("POST", "/tasks", task("x", ECHO | {"with": {"a": "x" * (1024 * 1024)}}))
    assert response.status_code == 413, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_body_that_is_no_json_is_refused(baton: Baton) -> None:
    import requests

    headers = {"Authorization": f"Bearer {baton.admin_token}", "Content-Type": "application/json"}
    response = requests.post(f"{baton.url}/tasks", data='{"title": ', headers=headers, timeout=10)
    assert response.status_code == 400
    assert "line 1" in response.json()["detail"]


def test_what_does_not_exist_is_404(baton: Baton) -> None:
    missing = "01890000-0000-7000-8000-000000000000"
    for path, reason in ((f"/tasks/{missing}", "TASK_NOT_FOUND"), (f"/runs/{missing}/steps", "RUN_NOT_FOUND")):
        response = baton.call("GET", path)
        assert (response.status_code, response.json()["reason"]) == (404, reason)
    assert baton.call("GET", "/nothing/here").status_code == 404
    refused = baton.call("PATCH", "/tasks")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize("token", ["", "garbage", "baton_0000000000000000_secret_00000000"])
def test_nothing_is_open_without_a_good_token(baton: Baton, token: str) -> None:
    for method, path in (("GET", "/tasks"), ("POST", "/tasks"), ("GET", "/runs.csv"), ("POST", "/runs:lease")):
        response = baton.call(method, path, {} if method == "POST" else None, token=token)
        assert response.status_code == 401, (method, path)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_does_only_what_its_scopes_allow(baton: Baton) -> None:
    agent = baton.create("/agents", {"name": f"reader-{baton.port}", "scopes": ["runs:read", "tasks:read"]})
    minted = baton.create(f"/agents/{agent['id']}/tokens", {"scopes": ["tasks:read"]})
    token = minted["token"]
    assert baton.call("GET", "/tasks", token=token).status_code == 200
    refused = baton.call("POST", "/tasks", task("x"), token=token)
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    assert "tasks:write" in refused.json()["detail"]
    assert baton.call("GET", "/runs", token=token).status_code == 403
    assert baton.call("DELETE", f"/agents/{agent['id']}/tokens/{minted['id']}").status_code == 200
    from tests.support.waiting import wait_until

    wait_until(lambda: baton.call("GET", "/tasks", token=token).status_code == 401, timeout=6)

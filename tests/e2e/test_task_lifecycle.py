"""The life of a task over REST: looked at, created, found, changed, paused, snoozed, run, canceled."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

ECHO = {"id": "echo", "uses": "echo.test", "with": {"text": "${params.greeting}"}, "save_as": "echo"}


def daily(title: str, **fields: Any) -> dict[str, Any]:
    return task(title, ECHO, schedule_kind="cron", schedule_expr="0 7 * * *", params={"greeting": "hello"}, **fields)


def put(baton: Baton, task_id: str, **fields: Any) -> Any:
    response = baton.call("PUT", f"/tasks/{task_id}", fields)
    assert response.status_code == 200, response.text
    return response.json()


def post(baton: Baton, path: str, body: Any = None, **headers: str) -> Any:
    response = baton.call("POST", path, {} if body is None else body, **headers)
    assert response.status_code == 200, response.text
    return response.json()


def problem(baton: Baton, method: str, path: str, body: Any, **options: Any) -> tuple[int, str]:
    """The status and the reason of a refusal."""
    response = baton.call(method, path, body, **options)
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["reason"]


def test_a_task_is_looked_at_before_it_is_created(baton: Baton) -> None:
    before = baton.get("/tasks?limit=1")["total"]
    body = daily("Preview", timezone="Europe/Chisinau") | {"sample": {"params": {"greeting": "buna"}}}
    shown = post(baton, "/tasks:preview", body)
    assert (shown["valid"], shown["errors"]) == (True, [])
    (step,) = shown["steps"]
    assert (step["id"], step["uses"], step["with"]) == ("echo", "echo.test", {"text": "buna"})
    assert len(shown["fire_times"]) == 20
    assert all(time["local"].endswith("T07:00:00") for time in shown["fire_times"])
    assert {time["offset"] for time in shown["fire_times"]} <= {"+02:00", "+03:00"}

    faulty = post(baton, "/tasks:preview", daily("Faulty", timezone="Mars/Olympus") | {"schedule_expr": "often"})
    assert not faulty["valid"]
    assert [fault["field"] for fault in faulty["errors"]] == ["timezone", "schedule_expr"]
    assert baton.get("/tasks?limit=1")["total"] == before


def test_tasks_are_found(baton: Baton) -> None:
    mark = uuid4().hex
    created = [baton.create("/tasks", daily(f"Found {mark} {n}")) for n in range(3)]
    listed = baton.get(f"/tasks?text={mark.upper()}&limit=2&offset=1&status=active&schedule_kind=cron")
    assert [item["id"] for item in listed["items"]] == [created[1]["id"], created[0]["id"]]
    assert (listed["total"], listed["limit"], listed["offset"], listed["has_more"]) == (3, 2, 1, False)
    owner = created[0]["created_by"]
    assert baton.get(f"/tasks?created_by={owner}&text={mark}")["total"] == 3
    assert baton.get(f"/tasks?created_by={uuid4()}&text={mark}")["items"] == []


def test_a_task_is_changed_in_part(baton: Baton) -> None:
    created = baton.create("/tasks", daily("Before", dedupe_key="k", dedupe_window_seconds=60, role="nobody"))
    assert (created["misfire"], created["overlap"], created["backoff_strategy"]) == (
        "run_once", "allow", "exponential_jitter",
    )  # fmt: skip
    changed = put(baton, created["id"], title="After", max_retries=0, overlap="queue", role="")
    assert changed == created | {
        "title": "After", "max_retries": 0, "overlap": "queue", "role": "", "target": "",
        "updated_at": changed["updated_at"],
    }  # fmt: skip
    assert changed["updated_at"] > created["updated_at"]
    assert baton.get(f"/tasks/{created['id']}") == changed
    # Sent back as it was read, it stays as it is.
    same = {name: changed[name] for name in ("title", "description", "schedule_expr", "payload", "priority", "status")}
    assert put(baton, created["id"], **same) == changed
    moved = put(baton, created["id"], schedule_expr="30 8 * * *")
    assert moved["next_fire_at"][11:16] == "08:30"
    refused = baton.call("PUT", f"/tasks/{created['id']}", {"timezone": "Mars/Olympus", "priority": 2})
    assert refused.status_code == 400
    assert [error["field"] for error in refused.json()["errors"]] == ["timezone"]
    assert baton.get(f"/tasks/{created['id']}") == moved


def test_a_paused_task_keeps_what_is_queued_until_it_is_resumed(baton: Baton) -> None:
    path = f"/tasks/{baton.create('/tasks', daily('Pause'))['id']}"
    # A role that nobody serves, so that the run is there to be paused.
    baton.call("PUT", path, {"role": "nobody"})
    run_id = post(baton, f"{path}/run_now")["details"]["run_id"]
    paused = post(baton, f"{path}/pause")
    assert paused["success"]
    assert (paused["details"]["old_status"], paused["details"]["new_status"]) == ("active", "paused")
    assert post(baton, f"{path}/pause")["details"]["old_status"] == "paused"
    assert baton.get(path)["paused_at"] is not None
    assert problem(baton, "POST", f"{path}/run_now", {}) == (409, "TASK_NOT_ACTIVE")
    assert problem(baton, "POST", f"{path}/snooze", {"delay_seconds": 60}) == (409, "TASK_NOT_ACTIVE")
    assert baton.get(f"/runs/{run_id}")["status"] == "queued"
    assert post(baton, f"{path}/resume")["details"]["new_status"] == "active"
    assert baton.get(path)["paused_at"] is None


def test_a_snoozed_task_fires_later(baton: Baton) -> None:
    created = baton.create("/tasks", daily("Snooze"))
    path = f"/tasks/{created['id']}"
    details = post(baton, f"{path}/snooze", {"delay_seconds": 90, "reason": "asleep"})["details"]
    assert (details["task_id"], details["delay_seconds"], details["affected_work_items"]) == (created["id"], 90, 1)
    fires = datetime.fromisoformat(created["next_fire_at"]) + timedelta(seconds=90)
    snoozed = baton.get(path)
    assert datetime.fromisoformat(snoozed["next_fire_at"]) == fires
    assert snoozed["next_scheduled_for"] == created["next_fire_at"]
    following = baton.get(f"{path}/occurrences?next=2")["next"]
    assert [datetime.fromisoformat(time["at"]) for time in following] == [
        fires, datetime.fromisoformat(created["next_fire_at"]) + timedelta(days=1),
    ]  # fmt: skip
    assert baton.call("POST", f"{path}/snooze", {"delay_seconds": 604_801}).status_code == 400


def test_a_run_gets_parameters_and_a_duplicate_none(baton: Baton) -> None:
    created = baton.create("/tasks", daily("Params", dedupe_key=uuid4().hex, dedupe_window_seconds=3600))
    path = f"/tasks/{created['id']}/run_now"
    first = post(baton, path, {"params": {"greeting": "salut"}})["details"]
    assert first["due_work_id"] == first["run_id"]
    assert baton.finished(first["run_id"])["output"] == {"echo": {"text": "salut"}}
    second = post(baton, path, {"params": {"greeting": "again"}})["details"]
    assert (second["run_id"], first["duplicate"], second["duplicate"]) == (first["run_id"], False, True)


def test_canceled_is_final(baton: Baton) -> None:
    created = baton.create("/tasks", daily("Cancel", role="nobody"))
    path = f"/tasks/{created['id']}"
    run_id = post(baton, f"{path}/run_now")["details"]["run_id"]
    details = post(baton, f"{path}/cancel", Idempotency_Key="cancel-once")["details"]
    assert (details["old_status"], details["new_status"], details["affected_work_items"]) == ("active", "canceled", 1)
    assert baton.get(f"/runs/{run_id}")["status"] == "canceled"
    again = baton.call("POST", f"{path}/cancel", {}, Idempotency_Key="cancel-once")
    assert (again.json()["details"], again.headers["Idempotent-Replayed"]) == (details, "true")
    assert post(baton, f"{path}/cancel")["details"]["affected_work_items"] == 0
    for verb in ("pause", "resume"):
        assert problem(baton, "POST", f"{path}/{verb}", {}) == (409, "TASK_CANCELED")
    assert problem(baton, "PUT", path, {"status": "active"}) == (409, "TASK_CANCELED")
    assert put(baton, created["id"], status="canceled")["status"] == "canceled"
    (occurrence,) = baton.get(f"{path}/occurrences")["items"]
    assert (occurrence["scheduled_for"], occurrence["outcome"]) == (created["next_fire_at"], "canceled")


def test_a_task_for_one_instant_is_completed_and_comes_back_with_a_new_one(baton: Baton) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    created = baton.create("/tasks", task("Once", {"uses": "echo.test"}, schedule_kind="once",
                                          schedule_expr=soon.isoformat()))  # fmt: skip
    path = f"/tasks/{created['id']}"
    wait_until(lambda: baton.get(path)["status"] == "completed")
    (occurrence,) = baton.get(f"{path}/occurrences?outcome=ran")["items"]
    assert baton.finished(occurrence["run_id"])["task_id"] == created["id"]
    assert problem(baton, "POST", f"{path}/pause", {}) == (409, "TASK_COMPLETED")
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert put(baton, created["id"], schedule_expr=later)["status"] == "active"


def test_what_passed_in_a_pause_is_told(baton: Baton) -> None:
    created = baton.create("/tasks", task("Tick", {"uses": "echo.test"}, schedule_kind="cron",
                                          schedule_expr="* * * * * *", misfire="skip", overlap="skip"))  # fmt: skip
    path = f"/tasks/{created['id']}"
    wait_until(lambda: bool(baton.get(f"{path}/occurrences?outcome=ran")["items"]))
    post(baton, f"{path}/pause")
    judged = len(baton.get(f"{path}/occurrences?limit=200")["items"])
    due = datetime.fromisoformat(baton.get(path)["next_fire_at"])
    wait_until(lambda: datetime.now(UTC) > due + timedelta(seconds=1))
    assert len(baton.get(f"{path}/occurrences?limit=200")["items"]) == judged
    post(baton, f"{path}/resume")
    assert len(baton.get(f"{path}/occurrences?limit=200")["items"]) > judged
    post(baton, f"{path}/cancel")
    times = [item["scheduled_for"] for item in baton.get(f"{path}/occurrences?limit=200")["items"]]
    assert len(times) == len(set(times))


def test_only_its_owner_changes_a_task(baton: Baton) -> None:
    created = baton.create("/tasks", daily("Mine"))
    scopes = ["tasks:read", "tasks:write"]
    other = baton.create("/agents", {"name": f"other-{uuid4()}", "scopes": scopes})
    token = baton.create(f"/agents/{other['id']}/tokens", {"scopes": scopes})["token"]
    path = f"/tasks/{created['id']}"
    assert baton.call("GET", path, token=token).status_code == 200
    for method, route, body in (
        ("PUT", path, {"title": "theirs"}),
        ("POST", f"{path}/run_now", {}),
        ("POST", f"{path}/snooze", {"delay_seconds": 1}),
        ("POST", f"{path}/pause", {}),
        ("POST", f"{path}/resume", {}),
        ("POST", f"{path}/cancel", {}),
    ):
        assert problem(baton, method, route, body, token=token) == (403, "TASK_OF_ANOTHER_AGENT"), route
    assert baton.get(path) == created

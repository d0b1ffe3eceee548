"""Clients that hand work to a role and ask how it stands, over REST."""

from typing import Any
from uuid import UUID, uuid4

import pytest
import requests

from tests.support.baton import Baton

WORK = {"task_type": "approval_request", "description": "Release 1.2", "data": {"version": "1.2"}}


def routed(baton: Baton, target: str, key: str | None = "", **fields: Any) -> requests.Response:
    """The answer to routed work; a new key unless one is given, None for no key at all."""
    headers = {} if key is None else {"Idempotency_Key": key or str(uuid4())}
    return baton.call("POST", "/tasks/route", {"target": target, "task": WORK, "context": {}} | fields, **headers)


@pytest.fixture
def role() -> str:
    """A role that nobody else has."""
    return f"releaser-{uuid4().hex[:8]}"


def standing(baton: Baton, role: str, status: str) -> list[str]:
    return [item["id"] for item in baton.get(f"/tasks?target={role}&status={status}&limit=50")["items"]]


def test_a_key_hands_work_over_once(baton: Baton, role: str) -> None:
    key = str(uuid4())
    first, again = (routed(baton, role, key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert (first.headers.get("Idempotent-Replayed"), again.headers.get("Idempotent-Replayed")) == (None, "true")
    task_id, status, trace_id = (first.json()[name] for name in ("task_id", "status", "trace_id"))
    assert (status, first.json().keys()) == ("pending", {"task_id", "status", "trace_id"})
    assert (standing(baton, role, "pending"), UUID(trace_id).int > 0) == ([task_id], True)
    other = routed(baton, role, key, context={"more": True})
    assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert standing(baton, role, "pending") == [task_id]


@pytest.mark.parametrize("key", [None, "release-1.2"])
def test_a_key_that_is_missing_or_no_uuid_is_named(baton: Baton, role: str, key: str | None) -> None:
    refused = routed(baton, role, key)
    assert refused.status_code == 400
    (error,) = refused.json()["errors"]
    assert (error["field"], "UUID" in error["message"]) == ("Idempotency-Key", True)
    assert refused.json()["detail"].startswith("Idempotency-Key: ")
    assert baton.get(f"/tasks?target={role}")["items"] == []


def test_what_is_too_large_or_unknown_is_refused(baton: Baton, role: str) -> None:
    large = routed(baton, role, context={"text": "x" * 1024 * 1024})
    assert (large.status_code, large.json()["reason"]) == (413, "BODY_TOO_LARGE")
    unknown = routed(baton, role, priority=1, task=WORK | {"from": "me"})
    assert sorted(error["field"] for error in unknown.json()["errors"]) == ["priority", "task.from"]
    assert baton.get(f"/tasks?target={role}")["items"] == []


def test_work_tells_how_it_stands(baton: Baton, role: str) -> None:
    pending, active, completed, failed, cancelled = (routed(baton, role).json()["task_id"] for _ in range(5))
    leases = {}
    for run in baton.call("POST", "/runs:lease", {"role": role, "limit": 5}).json()["runs"]:
        leases[run["task_id"]] = run["lease"]
    error = {"class": "validation", "message": "no such version"}
    reports = [
        {"lease": leases[pending], "released": {}},
        {"lease": leases[completed], "succeeded": {"output": {"url": "https://example.com/1.2"}}},
        {"lease": leases[failed], "failed": {"error": error}},
        {"lease": leases[cancelled], "canceled": {}},
    ]
    receipts = baton.call("POST", "/runs:report", {"reports": reports}).json()["receipts"]
    assert [receipt["accepted"] for receipt in receipts] == [True] * 4
    for word, task_id, status in (
        ("pending", pending, "queued"),
        ("active", active, "running"),
        ("completed", completed, "succeeded"),
        ("failed", failed, "failed"),
        ("cancelled", cancelled, "canceled"),
    ):
        assert standing(baton, role, word) == [task_id]
        task = baton.get(f"/tasks/{task_id}")
        assert (task["last_run"]["status"], task["target"], task["description"]) == (status, role, "Release 1.2")
        assert baton.get(f"/runs/{task['last_run']['id']}")["role"] == role
    assert baton.get(f"/runs/task/{completed}/latest")["output"] == {"url": "https://example.com/1.2"}
    assert len(standing(baton, role, "pending&status=failed")) == 2
    listed = baton.get(f"/tasks?role={role}")
    assert (listed["total"], {item["last_run"] for item in listed["items"]}) == (5, {None})
    refused = baton.call("GET", "/tasks?status=pending")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "status[0]")


def test_work_is_part_of_its_sender_s_trace(baton: Baton, role: str) -> None:
    trace = uuid4().hex
    answer = baton.call(
        "POST", "/tasks/route", {"target": role, "task": WORK}, Idempotency_Key=str(uuid4()),
        traceparent=f"00-{trace}-{'1' * 16}-01", X_Trace_Id=str(uuid4()),
    ).json()  # fmt: skip
    run_id = baton.get(f"/tasks/{answer['task_id']}")["last_run"]["id"]
    assert answer["trace_id"] == baton.get(f"/runs/{run_id}")["trace_id"] == trace


def test_somebody_is_asked_about_routed_work_by_its_task(baton: Baton, role: str) -> None:
    task_id = routed(baton, role).json()["task_id"]
    asked = baton.call("POST", "/approvals", {"task_id": task_id, "decision": "pending", "comments": "Is it time?"})
    assert asked.status_code == 202
    assert baton.get(f"/tasks/{task_id}")["last_run"]["status"] == "awaiting_approval"
    assert standing(baton, role, "pending") == [task_id]
    assert baton.call("POST", "/runs:lease", {"role": role}).json() == {"runs": []}

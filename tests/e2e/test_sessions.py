"""Sessions over REST, as clients of the earlier session controller have them, and what Baton adds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

SCOPES = ("sessions:read", "sessions:write")


@pytest.fixture
def token(baton: Baton) -> str:
    """Of an agent that has sessions."""
    return baton.agent_token(SCOPES)


def begin(baton: Baton, token: str, *events: str, **fields: Any) -> str:
    """The id of a new session to which these events have happened."""
    answer = baton.call("POST", "/sessions", {"agent_role": "planner"} | fields, token=token)
    assert answer.status_code == 201, answer.text
    session_id: str = answer.json()["session_id"]
    for event in events:
        assert baton.call("PUT", f"/sessions/{session_id}/events", {"event": event}, token=token).status_code == 200
    return session_id


def fault(answer: requests.Response) -> tuple[int, str]:
    """The status, and the field that is named first."""
    return answer.status_code, answer.json()["errors"][0]["field"]


def test_an_earlier_client_finds_what_it_knows(baton: Baton, token: str) -> None:
    role, task_id = f"role-{uuid4()}", str(uuid4())
    answer = baton.call(
        "POST", "/sessions", {"agent_role": role, "task_id": task_id, "metadata": {"a": [1, None]}}, token=token
    )
    assert (answer.status_code, answer.json()["status"]) == (201, "pending")
    session_id = answer.json()["session_id"]
    path = f"/sessions/{session_id}"
    read = baton.call("GET", path, token=token).json()
    assert {name: read[name] for name in ("session_id", "agent_role", "state", "metadata")} == {
        "session_id": session_id,
        "agent_role": role,
        "state": "pending",
        "metadata": {"a": [1, None]},
    }
    # Whatever the capitals; what is left out stays; metadata is replaced as a whole.
    changed = baton.call("PUT", path, {"status": "Active", "metadata": {"b": 2}}, token=token)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["state"], changed.json()["metadata"]) == ("active", {"b": 2})
    for event, state in (("pause", "paused"), ("resume", "active"), ("complete", "completed")):
        answer = baton.call("PUT", f"{path}/events", {"event": event}, token=token)
        assert (answer.status_code, answer.json()["state"]) == (200, state), answer.text
    page = baton.call("GET", f"/sessions?page=1&page_size=5&agent_role={role}", token=token).json()
    assert (page["total"], page["page"], page["page_size"]) == (1, 1, 5)
    (row,) = page["sessions"]
    assert {name: row[name] for name in ("id", "role", "task_id", "status", "metadata")} == {
        "id": session_id,
        "role": role,
        "task_id": task_id,
        "status": "completed",
        "metadata": {"b": 2},
    }
    assert row["created_at"] <= row["updated_at"]
    assert (row["completed_at"], page["has_more"], page["next_cursor"]) == (row["last_transition_at"], False, None)


def test_what_could_not_be_cleared_can(baton: Baton, token: str) -> None:
    session_id = begin(baton, token, task_id=str(uuid4()), metadata={"a": 1}, idle_timeout_seconds=600)
    body = {"task_id": None, "metadata": None, "idle_timeout_seconds": None, "status": None}
    session = baton.call("PUT", f"/sessions/{session_id}", body, token=token).json()
    assert (session["task_id"], session["metadata"], session["idle_timeout_seconds"]) == (None, {}, None)
    assert session["state"] == "pending"


def test_no_way_leads_around_the_state_machine(baton: Baton, token: str) -> None:
    session_id = begin(baton, token, "activate", "complete")
    before = baton.call("GET", f"/sessions/{session_id}", token=token).json()
    for method, suffix, body in (
        ("PUT", "", {"status": "active"}),
        ("PATCH", "", {"status": "pending", "metadata": {"x": 1}}),
        ("PUT", "", {"status": "completed"}),
        ("PUT", "/events", {"event": "activate"}),
        ("PUT", "/events", {"event": "resume"}),
    ):
        refused = baton.call(method, f"/sessions/{session_id}{suffix}", body, token=token)
        assert (refused.status_code, refused.json()["reason"]) == (409, "SESSION_TRANSITION_ILLEGAL")
        assert "completed is final" in refused.json()["detail"]
    assert baton.call("GET", f"/sessions/{session_id}", token=token).json() == before
    pending = begin(baton, token)
    refused = baton.call("PUT", f"/sessions/{pending}", {"status": "completed"}, token=token)
    assert "is pending and cannot become completed: what can follow is active, expired" in refused.json()["detail"]


def test_bad_input_is_told_by_name_and_nothing_is_stored(baton: Baton, token: str) -> None:
    role, metadata = f"role-{uuid4()}", {"text": "x" * 16 * 1024}
    session_id = begin(baton, token, agent_role=role)
    path = f"/sessions/{session_id}"
    before = baton.call("GET", path, token=token).json()
    for body, field in (
        ({}, "agent_role"),
        ({"agent_role": "x" * 51}, "agent_role"),
        ({"agent_role": 7}, "agent_role"),
        ({"agent_role": role, "task_id": "42"}, "task_id"),
        ({"agent_role": role, "metadata": metadata}, "metadata"),
        ({"agent_role": role, "metadata": [1]}, "metadata"),
        ({"agent_role": role, "idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"agent_role": role, "status": "active"}, "status"),
    ):
        assert fault(baton.call("POST", "/sessions", body, token=token)) == (400, field)
    for body, field in (
        ({"status": "asleep"}, "status"),
        ({"status": "unspecified"}, "status"),
        ({"metadata": metadata}, "metadata"),
        ({"agent_role": "other"}, "agent_role"),
        ({"version": 0}, "version"),
        ({"reason": "x" * 501}, "reason"),
    ):
        assert fault(baton.call("PUT", path, body, token=token)) == (400, field)
    assert fault(baton.call("PUT", f"{path}/events", {"event": "explode"}, token=token)) == (400, "event")
    assert fault(baton.call("PUT", f"{path}/events", {}, token=token)) == (400, "event")
    for unknown in (str(uuid4()), str(uuid4()).upper()):
        for method, suffix, body in (
            ("GET", "", None),
            ("PUT", "", {"status": "active"}),
            ("PUT", "/events", {"event": "activate"}),
            ("POST", "/heartbeat", None),
            ("GET", "/transitions", None),
        ):
            answer = baton.call(method, f"/sessions/{unknown}{suffix}", body, token=token)
            assert (answer.status_code, answer.json()["reason"]) == (404, "SESSION_NOT_FOUND")
    assert fault(baton.call("GET", "/sessions/42", token=token)) == (400, "session_id")
    assert baton.call("GET", path, token=token).json() == before
    assert baton.call("GET", f"/sessions?agent_role={role}", token=token).json()["total"] == 1


def test_no_page_overflows(baton: Baton, token: str) -> None:
    for page in ("0", "-1", "502", "2147483647", "2147483648", "99999999999", "9" * 40, "two", ""):
        assert fault(baton.call("GET", f"/sessions?page={page}", token=token)) == (400, "page")
    answer = baton.call("GET", "/sessions?page=501&page_size=1000", token=token)
    assert "must be from 1 to 101 with a page_size of 100" in answer.json()["detail"]
    assert baton.call("GET", "/sessions?page_size=1000", token=token).json()["page_size"] == 100


def test_of_two_updates_of_one_version_one_gets_409(baton: Baton, token: str) -> None:
    session_id = begin(baton, token)
    path = f"/sessions/{session_id}"
    read = baton.call("GET", path, token=token)
    assert (read.headers["ETag"], read.json()["version"]) == ('"1"', 1)
    gate = threading.Barrier(2)

    def write(number: int) -> requests.Response:
        gate.wait()
        return baton.call("PUT", path, {"metadata": {"writer": number}}, token=token, If_Match=read.headers["ETag"])

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(write, (1, 2)), key=lambda answer: answer.status_code)
    won, lost = answers
    assert (won.status_code, won.headers["ETag"]) == (200, '"2"')
    assert (lost.status_code, lost.json()["reason"]) == (409, "SESSION_VERSION_MISMATCH")
    assert baton.call("GET", path, token=token).json()["metadata"] == won.json()["metadata"]
    stale = baton.call("PUT", f"{path}/events", {"event": "activate", "version": 1}, token=token)
    assert stale.status_code == 409
    assert fault(baton.call("PUT", path, {}, token=token, If_Match="1")) == (400, "If-Match")


def test_a_session_expires_by_itself_unless_somebody_says_that_it_is_alive(baton: Baton, token: str) -> None:
    silent = begin(baton, token, "activate", idle_timeout_seconds=1)
    alive = begin(baton, token, "activate", idle_timeout_seconds=3)
    short = begin(baton, token, "activate", max_lifetime_seconds=2)

    def state(session_id: str) -> str:
        assert baton.call("POST", f"/sessions/{alive}/heartbeat", token=token).status_code == 200
        return str(baton.call("GET", f"/sessions/{session_id}", token=token).json()["state"])

    for session_id, reason in ((silent, "idle_timeout"), (short, "max_lifetime")):
        wait_until(lambda: state(session_id) == "expired")  # noqa: B023
        newest = baton.call("GET", f"/sessions/{session_id}/transitions", token=token).json()["items"][0]
        told = {name: newest[name] for name in ("from_status", "to_status", "event", "reason", "actor")}
        assert told == {
            "from_status": "active",
            "to_status": "expired",
            "event": None,
            "reason": reason,
            "actor": "baton.expiry",
        }
    assert state(alive) == "active"
    refused = baton.call("POST", f"/sessions/{silent}/heartbeat", token=token)
    assert (refused.status_code, refused.json()["reason"]) == (409, "SESSION_ENDED")


def test_a_session_is_its_agent_s(baton: Baton, token: str) -> None:
    session_id = begin(baton, token, "activate")
    other = baton.agent_token(SCOPES)
    refused = baton.call("PUT", f"/sessions/{session_id}", {"status": "failed"}, token=other)
    assert (refused.status_code, refused.json()["reason"]) == (403, "SESSION_OF_ANOTHER_AGENT")
    reader = baton.agent_token(["sessions:read"])
    assert baton.call("GET", f"/sessions/{session_id}", token=reader).status_code == 200
    for method, path in (("POST", "/sessions"), ("POST", f"/sessions/{session_id}/heartbeat")):
        refused = baton.call(method, path, {"agent_role": "x"} if path == "/sessions" else None, token=reader)
        assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    assert baton.call("PUT", f"/sessions/{session_id}", {"status": "failed"}).status_code == 200


def test_the_views_of_active_sessions_and_pending_approvals(baton: Baton, token: str) -> None:
    role = f"role-{uuid4()}"
    first, second = (begin(baton, token, "activate", agent_role=role) for _ in range(2))
    begin(baton, token, agent_role=role)
    assert baton.call("PUT", f"/sessions/{first}", {"metadata": {"x": 1}}, token=token).status_code == 200
    rows = baton.call("GET", f"/sessions/active?agent_role={role}", token=token).json()["items"]
    assert [row["id"] for row in rows] == [first, second]
    assert {"id", "role", "task_id", "created_at", "updated_at"} <= rows[0].keys()
    reported = baton.call("POST", "/agents/tasks/", {"task": "seo.check", "run_id": str(uuid4()), "status": "running"})
    asked = baton.call("POST", "/approvals", {"run_id": reported.json()["id"], "approver_role": role})
    assert asked.status_code == 202, asked.text
    (approval,) = baton.get(f"/approvals?status=pending&approver_role={role}")["items"]
    assert (approval["id"], approval["approver_role"]) == (asked.json()["approval_id"], role)
    assert {"task_id", "created_at", "task", "requested_by"} <= approval.keys()


def test_what_becomes_of_a_session_wakes_a_task_and_is_in_the_audit(baton: Baton, token: str) -> None:
    waiting = task("after a session", {"uses": "echo.test", "with": {"id": "${event.session_id}"}, "save_as": "seen"})
    waiting |= {"schedule_kind": "event", "schedule_expr": "session.completed"}
    task_id = baton.create("/tasks", waiting)["id"]
    session_id = begin(baton, token, "activate", "complete")

    def seen() -> bool:
        found = baton.get(f"/runs?task_id={task_id}&status=succeeded")["items"]
        return any(session_id in str(baton.get(f"/runs/{run['id']}")["output"]) for run in found)

    wait_until(seen)
    baton.call("PUT", f"/tasks/{task_id}", {"status": "paused"})

    def actions() -> list[str]:
        entries = baton.get(f"/audit?resource=session/{session_id}")["items"]
        return sorted(entry["action"] for entry in entries)

    expected = ["session.create", "session.send_event", "session.send_event"]
    assert wait_until(lambda: actions() == expected and expected) == expected


def test_a_key_makes_a_request_safe_to_repeat(baton: Baton, token: str) -> None:
    body, key = {"agent_role": f"role-{uuid4()}"}, str(uuid4())
    answers = [baton.call("POST", "/sessions", body, token=token, Idempotency_Key=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert baton.call("GET", f"/sessions?agent_role={body['agent_role']}", token=token).json()["total"] == 1

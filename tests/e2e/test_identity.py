"""Agents and their tokens over REST, as clients of the earlier scheduler have them, and what other services see."""

import time
from typing import Any
from uuid import uuid4

import pytest
import requests

from tests.e2e.test_tool_servers import PLAIN, outcome
from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

TOOL_SCOPE = "tool:identity.test"
EFFECTIVE_SECONDS = 5.0


@pytest.fixture
def agent(baton: Baton) -> Any:
    """An agent that may read tasks, as the earlier scheduler's clients make them."""
    fields = {"name": f"scribe-{uuid4()}", "scopes": ["tasks:read"], "webhook_url": "https://example.com/hook"}
    return baton.create("/agents/", fields)


def opens(baton: Baton, token: str) -> bool:
    """Whether a token opens a list."""
    return baton.call("GET", "/tasks?limit=1", token=token).status_code == 200


def ends_in_time(baton: Baton, token: str) -> bool:
    """Whether a token that has just been ended opens nothing within the time that is promised."""
    began = time.monotonic()
    wait_until(lambda: not opens(baton, token))
    return time.monotonic() - began < EFFECTIVE_SECONDS


def anybody(baton: Baton, path: str, **body: str) -> requests.Response:
    """The answer to somebody who sends no token."""
    return baton.call("POST", path, body, token="")


def signed_in(baton: Baton, agent_id: str) -> Any:
    """What an agent gets for a new secret."""
    secret = baton.call("POST", f"/agents/{agent_id}/credentials").json()["agent_secret"]
    answer = anybody(baton, "/agents/auth/token", agent_id=agent_id, agent_secret=secret)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_life_of_an_agent(baton: Baton, agent: Any) -> None:
    assert agent["webhook_url"] == "https://example.com/hook"
    path = f"/agents/{agent['id']}"
    found = baton.get(f"/agents?name_filter={agent['name'].upper()}&scope_filter=tasks:read&limit=5&offset=0")
    assert [one["id"] for one in found["items"]] == [agent["id"]]
    name = f"writer-{uuid4()}"
    put = baton.call("PUT", path, {"name": name, "scopes": ["tasks:read", "runs:read"], "webhook_url": None}).json()
    assert (put["name"], put["scopes"], put["webhook_url"]) == (name, ["runs:read", "tasks:read"], None)
    patched = baton.call("PATCH", path, {"metadata": {"team": "docs", "level": 3}, "version": put["version"]}).json()
    patched = baton.call("PATCH", path, {"metadata": {"level": None}}).json()
    assert patched["metadata"] == {"team": "docs"}
    stale = baton.call("PATCH", path, {"model": "x", "version": put["version"]})
    assert (stale.status_code, stale.json()["reason"]) == (409, "AGENT_VERSION_MISMATCH")
    tagged = baton.call("PATCH", path, {"model": "x"}, If_Match=baton.call("GET", path).headers["ETag"])
    assert (tagged.status_code, baton.call("PATCH", path, {}, If_Match='"1"').status_code) == (200, 409)
    deleted = baton.call("DELETE", path).json()
    assert (deleted["success"], deleted["details"]["agent_name"]) == (True, name)
    assert baton.get(f"/agents?name_filter={name}")["items"] == []
    assert baton.get(f"/agents?name_filter={name}&include_archived=true")["items"][0]["archived"] is True
    assert baton.create("/agents", {"name": name, "scopes": ["tasks:read"]})["id"] != agent["id"]


def test_neither_the_system_nor_oneself_is_deleted(baton: Baton, agent: Any) -> None:
    baton.call("PUT", f"/agents/{agent['id']}", {"scopes": ["agents:admin"]})
    token = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
    for agent_id in ("00000000-0000-0000-0000-000000000001", agent["id"]):
        refused = baton.call("DELETE", f"/agents/{agent_id}", token=token)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "agent_id")


def test_a_status_is_one_that_exists_and_can_follow(baton: Baton, agent: Any) -> None:
    token = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
    path = f"/agents/{agent['id']}/status"
    assert baton.call("POST", path, {"status": "executing"}, token=token).json()["status"] == "executing"
    unknown = baton.call("POST", path, {"status": "sleeping"}, token=token)
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (400, "status")
    assert baton.call("POST", path, {"status": "blocked"}, token=token).status_code == 200
    illegal = baton.call("POST", path, {"status": "complete"}, token=token)
    assert (illegal.status_code, illegal.json()["reason"]) == (409, "AGENT_STATUS_ILLEGAL")
    assert "is blocked and cannot become complete: what can follow is idle, executing" in illegal.json()["detail"]


def test_an_agent_obtains_refreshes_and_surrenders_its_tokens(baton: Baton, agent: Any) -> None:
    first = signed_in(baton, agent["id"])
    assert (first["token_type"], first["expires_in"], first["scope"]) == ("bearer", 3600, "tasks:read")
    assert opens(baton, first["access_token"])
    assert not opens(baton, first["refresh_token"])
    second = anybody(baton, "/agents/auth/refresh", refresh_token=first["refresh_token"]).json()
    assert opens(baton, second["access_token"])
    again = anybody(baton, "/agents/auth/refresh", refresh_token=first["refresh_token"])
    unknown = anybody(baton, "/agents/auth/refresh", refresh_token="nope")
    assert (again.status_code, again.json()["detail"]) == (unknown.status_code, unknown.json()["detail"])
    assert again.status_code == 401
    answer = anybody(baton, "/agents/auth/revoke", refresh_token=second["refresh_token"])
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert ends_in_time(baton, second["access_token"])
    assert anybody(baton, "/agents/auth/refresh", refresh_token=second["refresh_token"]).status_code == 401
    used = baton.get(f"/agents/{agent['id']}/tokens?kind=access")["items"]
    assert len(used) == 2
    assert "access_token" not in str(used)


def test_who_signs_in_in_vain_learns_nothing(baton: Baton, agent: Any) -> None:
    signed_in(baton, agent["id"])
    answers = [
        anybody(baton, "/agents/auth/token", agent_id=agent_id, agent_secret="nope")
        for agent_id in (agent["id"], str(uuid4()), "00000000-0000-0000-0000-000000000001")
    ]
    assert {answer.status_code for answer in answers} == {401}
    told = {"type", "title", "status", "detail", "code", "reason", "errors"}
    assert len({str({name: answer.json()[name] for name in told}) for answer in answers}) == 1


def test_a_rotated_token_goes_on_for_the_seconds_that_were_said(baton: Baton, agent: Any) -> None:
    old = baton.create(f"/agents/{agent['id']}/tokens", {})
    new = baton.create(f"/agents/{agent['id']}/tokens/{old['id']}/rotate", {"overlap_seconds": 2})
    assert opens(baton, new["token"])
    assert opens(baton, old["token"])
    wait_until(lambda: not opens(baton, old["token"]), timeout=2 + EFFECTIVE_SECONDS)
    assert opens(baton, new["token"])


def test_an_archived_agent_is_shut_out_everywhere(baton: Baton) -> None:
    owner = baton.create("/agents", {"name": f"owner-{uuid4()}", "scopes": ["tasks:write", "tasks:read", TOOL_SCOPE]})
    token = baton.create(f"/agents/{owner['id']}/tokens", {})["token"]
    server = f"identity{uuid4().hex[:8]}"
    baton.create("/tool-servers", PLAIN | {"name": server, "scopes": [TOOL_SCOPE]})
    wait_until(lambda: baton.get(f"/tool-servers/{server}")["status"]["tools_known_at"])
    made = baton.call("POST", "/tasks", task("needs the scope", {"uses": f"{server}.pid"}), token=token)
    assert made.status_code == 201, made.text
    task_id = made.json()["id"]
    assert outcome(baton, task_id) == ("succeeded", "")
    assert baton.call("DELETE", f"/agents/{owner['id']}").status_code == 200
    assert ends_in_time(baton, token)

    def is_refused() -> bool:
        status, why = outcome(baton, task_id)
        return status == "failed" and f"agent {owner['id']}" in why and "archived" in why

    wait_until(is_refused)


def test_there_is_one_orchestrator(baton: Baton) -> None:
    first = baton.call("POST", "/orchestrator", {"scopes": ["agents:read"]}).json()
    again = baton.call("POST", "/orchestrator", {"scopes": ["agents:read"], "name": "other"}).json()
    assert again == {"orchestrator": first["orchestrator"], "created": False}
    assert baton.get("/orchestrator") == baton.get("/get_orchestrator") == {"orchestrator": first["orchestrator"]}
    assert baton.call("POST", "/reset_context").json()["orchestrator"]["session_id"] is None
    assert first["orchestrator"]["id"] in [one["id"] for one in baton.get("/list_agents?limit=200")["items"]]

"""Tool servers over REST: registered, changed, guarded by scopes, listed in a file and deleted."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.e2e.conftest import StartBaton
from tests.support.baton import ROOT, Baton, task
from tests.support.waiting import wait_until

PLAIN = {
    "transport": "stdio",
    "command": [sys.executable, "-m", "tests.support.plain_mcp_server"],
    "env": {"PYTHONPATH": str(ROOT)},
}


def outcome(baton: Baton, task_id: str) -> tuple[str, str]:
    """How a run of a task ends, and why."""
    run = baton.finished(baton.run_now(task_id))
    return run["status"], (run["error"] or {}).get("message", "")


def change(baton: Baton, name: str, **fields: Any) -> dict[str, Any]:
    response = baton.call("PUT", f"/tool-servers/{name}", fields)
    assert response.status_code == 200, response.text
    changed: dict[str, Any] = response.json()
    return changed


def test_the_life_of_a_tool_server(baton: Baton) -> None:
    created = baton.create("/tool-servers", PLAIN | {"name": "plain", "description": "For a test."})
    assert (created["enabled"], created["managed_by"], created["scopes"]) == (True, "api", [])
    assert created["env"] == {"PYTHONPATH": "***"}
    assert baton.get("/tool-servers/plain") | {"status": None} == created | {"status": None}
    wait_until(lambda: baton.get("/tool-servers/plain")["status"]["tools_known_at"])
    (tool,) = baton.get("/tools?server=plain&q=PROMISE")["items"]
    assert (tool["address"], tool["output_schema"]["required"]) == ("plain.promise", ["n"])
    step = {"uses": "plain.pid"}
    user = baton.create("/tasks", task("uses it", step))
    assert outcome(baton, user["id"])[0] == "succeeded"

    changed = change(baton, "plain", enabled=False, timeout_seconds=7, env={"PYTHONPATH": "***"})
    assert (changed["enabled"], changed["timeout_seconds"], changed["command"]) == (False, 7, PLAIN["command"])
    refused = baton.call("POST", "/tasks", task("x", step))
    assert refused.status_code == 400
    assert "tool server 'plain' is disabled" in refused.json()["errors"][0]["message"]
    wait_until(lambda: outcome(baton, user["id"]) == ("failed", "tool server plain is disabled"))
    change(baton, "plain", enabled=True)
    wait_until(lambda: outcome(baton, user["id"])[0] == "succeeded")

    refused = baton.call("DELETE", "/tool-servers/plain")
    assert (refused.status_code, refused.json()["reason"]) == (409, "TOOL_SERVER_IN_USE")
    assert "'uses it'" in refused.json()["detail"]
    deleted = baton.call("DELETE", "/tool-servers/plain?force=true")
    assert (deleted.status_code, deleted.json()) == (200, {"task_ids": [user["id"]]})
    assert baton.call("GET", "/tool-servers/plain").status_code == 404
    gone = ("failed", "tool server plain is not registered")
    wait_until(lambda: outcome(baton, user["id"]) == gone)


def test_bad_changes_are_refused_and_named(baton: Baton) -> None:
    before = baton.get("/tool-servers/time")
    for body, field in (
        ({"command": ["time"]}, "command[0]"),
        ({"command": "time"}, "command"),
        ({"command": [1]}, "command[0]"),
        ({"env": {"A": 1}}, "env.A"),
        ({"scopes": ["notify"]}, "scopes[0]"),
        ({"enabled": "yes"}, "enabled"),
        ({"colour": "red"}, "colour"),
    ):
        refused = baton.call("PUT", "/tool-servers/time", body)
        assert refused.status_code == 400, body
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    after = baton.get("/tool-servers/time")
    assert before | {"status": None} == after | {"status": None}


def test_a_tool_is_used_by_who_holds_its_scopes_when_it_is_called(baton: Baton) -> None:
    baton.create("/tool-servers", PLAIN | {"name": "guarded", "scopes": ["tool:guarded.read"]})
    runs: dict[str, tuple[str, str]] = {}
    for name, scopes in (("holder", ["tasks:write", "tool:guarded.read"]), ("other", ["tasks:write"])):
        agent = baton.create("/agents", {"name": f"{name} of {baton.port}", "scopes": scopes})
        token = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
        response = baton.call("POST", "/tasks", task(name, {"uses": "guarded.pid"}), token=token)
        assert response.status_code == 201, response.text
        runs[name] = outcome(baton, response.json()["id"])
        owner = agent["id"]
    assert runs["holder"][0] == "succeeded"
    lacking = f"tool server guarded needs tool:guarded.read, which the task's owner, agent {owner}, lacks"
    assert runs["other"] == ("failed", lacking)
    # The administrator holds everything.
    own = baton.create("/tasks", task("own", {"uses": "guarded.pid"}))
    assert outcome(baton, own["id"])[0] == "succeeded"


def test_a_server_that_cannot_be_started_says_why(baton: Baton) -> None:
    baton.create("/tool-servers", {"name": "missing", "transport": "stdio", "command": ["/nowhere/server"]})
    status = wait_until(lambda: _failed(baton, "missing"))
    assert status["last_error"] == "tool server missing cannot be reached: no such file or directory"
    assert (status["tools_known_at"], status["last_error_at"][-1]) == (None, "Z")


def _failed(baton: Baton, name: str) -> Any:
    status = baton.get(f"/tool-servers/{name}")["status"]
    return status if status["last_error"] else None


def test_tool_servers_of_the_operators_file(start_baton: StartBaton, tmp_path: Path) -> None:
    file = tmp_path / "tool-servers.json"
    file.write_text(json.dumps([PLAIN | {"name": "plain"}]))
    baton = start_baton(BATON_TOOL_SERVERS_FILE=str(file), BATON_TOOL_MEMORY_MB="256", BATON_TOOL_OPEN_FILES="100")
    assert baton.get("/tool-servers/plain")["managed_by"] == "file"
    hog = {"uses": "plain.hog", "with": {"megabytes": 300}, "save_as": "memory"}
    files = {"uses": "plain.open_files", "with": {"count": 1000}, "save_as": "files"}
    created = baton.create("/tasks", task("limits", hog, files))
    output = baton.finished(baton.run_now(created["id"]))["output"]
    assert output["memory"] == "refused"
    assert output["files"] < 100
    for refused in (
        baton.call("PUT", "/tool-servers/plain", {"enabled": False}),
        baton.call("DELETE", "/tool-servers/plain?force=true"),
    ):
        assert (refused.status_code, refused.json()["reason"]) == (409, "TOOL_SERVER_MANAGED_BY_FILE")

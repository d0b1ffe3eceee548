"""A budget that is used up stops what is under way before its next step, and lets nothing more begin."""

import sys
from typing import Any

from services.chassis.ids import new_id
from tests.support.baton import ROOT, Baton, task
from tests.support.waiting import wait_until


def slow_server(baton: Baton) -> str:
    """A tool server that can be slow; answers its name."""
    name = f"slow{new_id()[-8:]}"
    command = [sys.executable, "-m", "tests.support.plain_mcp_server"]
    server = {"name": name, "transport": "stdio", "command": command, "env": {"PYTHONPATH": str(ROOT)}}
    baton.create("/tool-servers", server)
    wait_until(lambda: [one for one in baton.get("/tools?limit=200")["items"] if one["server"] == name])
    return name


def exceeded(baton: Baton, budget_id: str) -> bool:
    return bool(baton.get(f"/budgets/{budget_id}")["state"] == "hard_exceeded")


def test_a_run_is_stopped_between_two_steps(baton: Baton) -> None:
    server = slow_server(baton)
    owner = baton.create("/agents", {"name": f"owner-{new_id()}", "scopes": ["tasks:read"]})["id"]
    budget = baton.create("/budgets", {"agent_id": owner, "metric": "tool_calls", "period": "day", "hard_limit": 1})
    # The tasks service hears of it within a second or so, and of what is used up as much later.
    steps: list[dict[str, Any]] = [
        {"id": f"slow_{n}", "uses": f"{server}.sleep", "with": {"seconds": 1}} for n in range(20)
    ]
    task_id = baton.create("/tasks", task("Spends", *steps, created_by=owner))["id"]
    run_id = baton.run_now(task_id)
    wait_until(lambda: baton.get(f"/runs/{run_id}")["status"] == "canceled")
    run = baton.get(f"/runs/{run_id}")
    assert (run["status"], run["error"]["class"]) == ("canceled", "budget_exceeded")
    assert budget["id"] in run["error"]["message"]
    done = [step["id"] for step in baton.get(f"/runs/{run['id']}/steps")["items"]]
    assert done == [step["id"] for step in steps[: len(done)]]
    assert len(done) < len(steps)
    wait_until(lambda: exceeded(baton, budget["id"]))
    by_agent = baton.get(f"/usage/summary?group_by=agent&agent_id={owner}")["items"]
    assert by_agent[0]["tool_calls"] >= 1
    next_one = baton.run_now(task_id)
    blocker = wait_until(
        lambda: [one for one in baton.get(f"/runs/{next_one}/explain")["blockers"] if one["code"] == "budget_exceeded"],
    )
    assert budget["id"] in blocker[0]["message"]
    heard = task("Hears", schedule_kind="event", schedule_expr="budget.*")
    baton.create("/tasks", heard)
    baton.create("/budgets", {"agent_id": owner, "metric": "tokens", "soft_limit": 1})
    assert baton.call("POST", f"/agents/{owner}/usage", {"input_tokens": 2}).ok
    wait_until(lambda: baton.get("/events?topic=budget.soft_exceeded")["items"])
    assert baton.call("PATCH", f"/budgets/{budget['id']}", {"hard_limit": 100}).json()["state"] == "within"


def test_an_agent_whose_tokens_are_used_up_gets_no_work(baton: Baton) -> None:
    role = f"writer-{new_id()[-8:]}"
    agent = baton.create("/agents", {"name": role, "role": role, "scopes": ["runs:work"]})["id"]
    token = baton.create(f"/agents/{agent}/tokens", {})["token"]
    budget = baton.create("/budgets", {"agent_id": agent, "metric": "tokens", "soft_limit": 50, "hard_limit": 100})
    for tokens, state in ((60, "soft_exceeded"), (50, "hard_exceeded")):
        call = {"model": "opus", "input_tokens": tokens, "cost_microusd": 10}
        told = baton.call("POST", "/usage", {"calls": [call]}, token=token)
        assert told.status_code == 201, told.text
        assert baton.get(f"/budgets/{budget['id']}")["state"] == state
    task_id = baton.create("/tasks", task("Write", role=role))["id"]
    refused = wait_until(lambda: _refusal(baton, token, task_id))
    assert (refused["code"], refused["reason"]) == ("RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED")
    assert f"budget {budget['id']} of agent {agent}: 110 of 100 tokens" in refused["detail"]
    assert baton.call("DELETE", f"/budgets/{budget['id']}").ok
    leased = wait_until(lambda: _leased(baton, token))
    assert leased[0]["task"] == "Write"


def _refusal(baton: Baton, token: str, task_id: str) -> Any:
    # There has to be work to be refused: a run that was leased when the budget came through has been called off.
    baton.run_now(task_id)
    answer = baton.call("POST", "/runs:lease", {}, token=token)
    if answer.ok:  # the budget has not come through yet: the run is given back
        _give_back(baton, token, answer.json()["runs"])
        return None
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    return answer.json()


def _leased(baton: Baton, token: str) -> Any:
    answer = baton.call("POST", "/runs:lease", {}, token=token)
    return answer.json()["runs"] if answer.ok else None


def _give_back(baton: Baton, token: str, runs: list[Any]) -> None:
    if runs:
        reports = [{"lease": run["lease"], "released": {}} for run in runs]
        assert baton.call("POST", "/runs:report", {"reports": reports}, token=token).ok

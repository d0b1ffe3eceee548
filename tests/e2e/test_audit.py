"""The audit over REST: what the tasks service does is in it, whoever is killed meanwhile."""

from typing import Any

import pytest

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton, task
from tests.support.waiting import wait_until


def entries(baton: Baton, **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    items: list[dict[str, Any]] = baton.get(f"/audit?{query}")["items"]
    return items


def test_a_change_is_told_with_its_actor_key_and_trace(baton: Baton) -> None:
    task_id = baton.create("/tasks", task("Audited", {"uses": "echo.test"}))["id"]
    changed = baton.call("PUT", f"/tasks/{task_id}", {"priority": 1}, Idempotency_Key="change-7")
    assert changed.status_code == 200, changed.text

    def told() -> list[dict[str, Any]]:
        return entries(baton, resource=f"task/{task_id}", action="task.update")

    (entry,) = wait_until(told)
    assert (entry["context"], entry["request_id"]) == ("tasks", "change-7")
    assert (entry["before"], entry["after"]) == ({"priority": 5}, {"priority": 1})
    assert entry["actor"] == baton.get(f"/tasks/{task_id}")["created_by"]
    assert len(entry["trace_id"]) == 32
    assert baton.get("/audit/verify")["valid"] is True
    file = baton.call("GET", f"/audit.csv?resource=task/{task_id}")
    assert file.headers["content-type"].startswith("text/csv")
    assert "task.update" in file.text


@pytest.mark.timeout(180)
def test_nothing_is_lost_or_told_twice_when_services_are_killed(start_baton: StartBaton) -> None:
    baton = start_baton()
    ids = []
    for round_number in range(3):
        ids += [
            baton.create("/agents", {"name": f"a{round_number}-{n}", "scopes": ["tasks:read"]})["id"] for n in (1, 2)
        ]
        task_id = baton.create("/tasks", task(f"t{round_number}", {"uses": "echo.test"}))["id"]
        assert baton.call("PUT", f"/tasks/{task_id}", {"priority": 1}).status_code == 200
        baton.kill(("sessions", "tasks", "sessions")[round_number])
        wait_until(baton.is_ready)
    wait_until(lambda: len(entries(baton, action="task.update", limit="200")) == 3)
    wait_until(lambda: {f"agent/{one}" for one in ids} <= _resources(baton))
    agents = [entry["resource"] for entry in entries(baton, action="agent.create", limit="200")]
    assert len(agents) == len(set(agents))
    answer = baton.get("/audit/verify")
    assert (answer["valid"], answer["complete"], answer["fault_count"]) == (True, True, 0)


def _resources(baton: Baton) -> set[str]:
    return {entry["resource"] for entry in entries(baton, action="agent.create", limit="200")}

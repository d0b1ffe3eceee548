"""Runs, live, as server-sent events."""

import json
from typing import Any

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton, task
from tests.support.events import Events, told
from tests.support.waiting import wait_until


def runs(events: Events) -> list[Any]:
    """The runs that were told, in order."""
    return [run for event in events.events if (run := json.loads(event["data"])["run"])]


def test_who_watches_is_told_what_becomes_of_runs(baton: Baton) -> None:
    works = baton.create("/tasks", task("Watched", {"uses": "echo.test"}))["id"]
    fails = baton.create("/tasks", task("Fails", {"uses": "tasks.run", "with": {"task_id": "nobody"}}))["id"]
    query = f"/runs:watch?task_id={works}&task_id={fails}"
    with told(baton.port, query, baton.agent_token(["runs:read"])) as events:
        begin = json.loads(events.events[0]["data"])
        assert (begin["run"], begin["resync"]) == (None, False)
        ids = [baton.run_now(works), baton.run_now(fails)]
        wait_until(lambda: {run["status"] for run in runs(events)} >= {"succeeded", "failed"})
    latest = {run["id"]: run for run in runs(events)}
    assert set(latest) == set(ids)
    for run_id in ids:
        # As the list shows it, to the last field.
        [listed] = [
            item for item in baton.get(f"/runs?task_id={works}&task_id={fails}")["items"] if item["id"] == run_id
        ]
        assert latest[run_id] == listed
    # From where it began, all of it is told again.
    with told(baton.port, query, baton.admin_token, Last_Event_ID=events.events[0]["id"]) as again:
        wait_until(lambda: {run["id"] for run in runs(again)} == set(ids))
        assert not json.loads(again.events[0]["data"])["resync"]


def test_it_is_for_those_who_may_read_runs(baton: Baton) -> None:
    refused = baton.call("GET", "/runs:watch", token=baton.agent_token(["tasks:read"]))
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    assert baton.call("GET", "/runs:watch?task_id=7").json()["errors"][0]["field"] == "task_id[0]"


def test_who_watches_goes_on_behind_a_service_that_was_killed(start_here: StartBaton) -> None:
    baton = start_here()
    task_id = baton.create("/tasks", task("Watched", {"uses": "echo.test"}))["id"]
    with told(baton.port, "/runs:watch", baton.admin_token) as events:
        first = baton.run_now(task_id)
        wait_until(lambda: runs(events) and runs(events)[-1]["status"] == "succeeded")
        baton.kill("tasks")
        wait_until(lambda: events.events[-1].get("event") == "problem")
        assert json.loads(events.events[-1]["data"])["status"] == 503
    wait_until(baton.is_ready)
    second = baton.run_now(task_id)
    last = next(event["id"] for event in reversed(events.events) if "id" in event)
    with told(baton.port, "/runs:watch", baton.admin_token, Last_Event_ID=last) as back:
        wait_until(lambda: runs(back) and runs(back)[-1]["status"] == "succeeded")
        assert not json.loads(back.events[0]["data"])["resync"]
        assert {run["id"] for run in runs(back)} <= {first, second}

"""The tasks service dies while events are on their way: each is matched with every task, once."""

import os
import signal
from collections import Counter
from typing import Any

import pytest
import requests

from tests.chaos.conftest import Victim, note
from tests.support import replicas
from tests.support.waiting import wait_until

_TASKS = 1100  # more than one transaction matches
_RUNS = 40


@pytest.mark.timeout(300)
def test_what_was_published_reaches_every_task_though_the_service_is_killed_before(victim: Victim) -> None:
    baton = victim.baton
    for number in range(_TASKS):
        victim.create(f"Wait {number}", schedule_kind="event", schedule_expr="order.*", role="nobody")
    answer = baton.call("POST", "/events", {"topic": "order.created", "payload": {"id": 7}})
    os.kill(baton.children()["tasks"], signal.SIGKILL)
    assert answer.status_code == 202, answer.text
    details = answer.json()["details"]
    assert (len(details["triggered_tasks"]), details["complete"]) == (1000, False)
    wait_until(lambda: "tasks" in baton.children())
    path = f"/events/{details['event_id']}"
    event = wait_until(lambda: _dispatched(victim, path))
    assert (event["matched_tasks"], event["triggered_runs"]) == (_TASKS, _TASKS)
    runs = _all(victim, f"/runs?event_id={details['event_id']}&limit=200")
    assert len({run["task_id"] for run in runs}) == len(runs) == _TASKS
    deliveries = _all(victim, f"{path}/deliveries?limit=200")
    assert {one["run_id"] for one in deliveries} == {run["id"] for run in runs}


@pytest.mark.timeout(300)
def test_what_follows_from_the_ends_of_runs_follows_once_whatever_dies(victim: Victim) -> None:
    """Two replicas, of which one is killed again and again while runs end that another task waits for."""
    baton = victim.baton
    first = victim.create("First", note("${run.id}"), max_retries=0)
    second = victim.create(
        "Second",
        note("after ${event.run_id}"),
        schedule_kind="event",
        schedule_expr="run.succeeded",
        event_filter=f"event.task_id == '{first}'",
        max_retries=0,
    )
    with replicas.tasks_service(baton, victim.database_url):
        for number in range(_RUNS):
            _submit(victim, f"/tasks/{first}/run_now", f"key-{number}")
            if number % 15 == 14:
                os.kill(baton.children()["tasks"], signal.SIGKILL)
                wait_until(lambda: "tasks" in baton.children())
        ended = wait_until(lambda: _finished(victim, first), timeout=150)
        followed = wait_until(lambda: _finished(victim, second), timeout=150)
    assert Counter(run["status"] for run in ended) == {"succeeded": _RUNS}
    causes = [baton.get(f"/events/{run['event_id']}")["event"]["payload"]["run_id"] for run in followed]
    assert sorted(causes) == sorted(run["id"] for run in ended), "one for each end, and no other"


def _dispatched(victim: Victim, path: str) -> Any:
    try:
        event = victim.baton.get(path)["event"]
    except (requests.ConnectionError, AssertionError):
        return None
    return event if event["dispatched_at"] else None


def _submit(victim: Victim, path: str, key: str) -> None:
    """Asks until it is answered, with the same key."""

    def answered() -> bool:
        try:
            return victim.baton.call("POST", path, {}, Idempotency_Key=key).status_code == 200
        except requests.ConnectionError:
            return False

    wait_until(answered)


def _finished(victim: Victim, task_id: str) -> list[dict[str, Any]] | None:
    try:
        runs = _all(victim, f"/runs?task_id={task_id}&limit=200")
    except (requests.ConnectionError, AssertionError):
        return None
    return runs if len(runs) >= _RUNS and all(run["finished_at"] for run in runs) else None


def _all(victim: Victim, path: str) -> list[dict[str, Any]]:
    """The items of all pages."""
    found, cursor = [], ""
    while True:
        page = victim.baton.get(f"{path}&cursor={cursor}" if cursor else path)
        found += page["items"]
        if not page["has_more"]:
            return found
        cursor = page["next_cursor"]

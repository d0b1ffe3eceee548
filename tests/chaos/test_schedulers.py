"""Two replicas of the tasks service, one of which is killed and one stopped: every time gets one outcome."""

import os
import signal
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.chaos.conftest import Victim, note
from tests.support import replicas
from tests.support.waiting import wait_until


@pytest.mark.timeout(180)
def test_every_nominal_time_gets_one_outcome_and_one_run_at_most(victim: Victim) -> None:
    """P4."""
    baton = victim.baton
    every_second = {"schedule_kind": "cron", "schedule_expr": "* * * * * *", "misfire": "run_all", "max_retries": 0}
    task_ids = [victim.create(f"Tick {number}", note("${task.id}"), **every_second) for number in range(4)]
    with replicas.tasks_service(victim.baton, victim.database_url) as second:
        _wait_for_times(baton, task_ids[0], 5)
        if victim.postgres is not None:
            # On SQLite a process that stands still may hold the one lock that there is.
            second.send(signal.SIGSTOP)
            _wait_for_times(baton, task_ids[0], 5)
            second.send(signal.SIGCONT)
        os.kill(baton.children()["tasks"], signal.SIGKILL)
        wait_until(lambda: "tasks" in baton.children() and _answers(baton))
        _wait_for_times(baton, task_ids[0], 5)
    for task_id in task_ids:
        paused = baton.call("POST", f"/tasks/{task_id}/pause", {})
        assert paused.status_code == 200, paused.text
        _assert_one_outcome_each(baton, task_id)


def _assert_one_outcome_each(baton: Any, task_id: str) -> None:
    occurrences = baton.get(f"/tasks/{task_id}/occurrences?limit=200")["items"]
    covered = sorted(instant for item in occurrences for instant in _seconds(item))
    first, last = covered[0], covered[-1]
    assert covered == [first + timedelta(seconds=number) for number in range(len(covered))], (
        "a time is missing or double"
    )
    assert (last - first).total_seconds() + 1 == len(covered)
    ran = [item["run_id"] for item in occurrences if item["outcome"] == "ran"]
    runs = baton.get(f"/runs?task_id={task_id}&limit=200")["items"]
    assert sorted(ran) == sorted(run["id"] for run in runs), "every run has its occurrence, and the other way round"
    assert len(set(ran)) == len(ran)


def _seconds(occurrence: dict[str, str]) -> list[datetime]:
    first = datetime.fromisoformat(occurrence["scheduled_for"])
    last = datetime.fromisoformat(occurrence["through"] or occurrence["scheduled_for"])
    return [first + timedelta(seconds=number) for number in range(int((last - first).total_seconds()) + 1)]


def _wait_for_times(baton: Any, task_id: str, more: int) -> None:
    def count() -> int:
        return len(baton.get(f"/tasks/{task_id}/occurrences?limit=200")["items"])

    before = count()
    wait_until(lambda: count() >= before + more)


def _answers(baton: Any) -> bool:
    return baton.call("GET", "/tasks").status_code == 200

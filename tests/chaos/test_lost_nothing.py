"""Processes die while work comes in: what was acknowledged is done, once for each lease, and recorded once."""

import os
import signal
import threading
import time
from collections import Counter
from uuid import uuid4

import pytest
import requests

from tests.chaos.conftest import Victim, note
from tests.support.waiting import wait_until

_RUNS = 60
_MAX_RETRIES = 3
# A kill may cost a lease, 30 s, and the reaper 5 s, and each run may be hit more than once.
_DRAIN_SECONDS = 150


@pytest.mark.timeout(300)
def test_what_was_acknowledged_is_done_whatever_dies(victim: Victim) -> None:
    """P1 and P2."""
    task_id = victim.create(
        "Never lost", note("${run.id} first"), note("${run.id} second", 0.2), max_retries=_MAX_RETRIES
    )
    submitter = Submitter(victim, task_id)
    submitter.start()
    for killed in ("worker", "tasks", "gateway", "sessions"):
        seen = len(submitter.acknowledged)
        wait_until(lambda: len(submitter.acknowledged) >= min(seen + 8, _RUNS))  # noqa: B023
        os.kill(victim.baton.children()[killed], signal.SIGKILL)
        wait_until(lambda: killed in victim.baton.children())  # noqa: B023
    if victim.postgres is not None:
        victim.postgres.crash()
        victim.postgres.start()
    submitter.join(120)

    assert len(submitter.acknowledged) == len(set(submitter.acknowledged)) == _RUNS
    runs = wait_until(lambda: _all_finished(victim, task_id), timeout=_DRAIN_SECONDS)
    assert {run["id"] for run in runs} == set(submitter.acknowledged), "one run for each key, acknowledged or not"
    assert Counter(run["status"] for run in runs) == {"succeeded": _RUNS}
    done = Counter(victim.effects())
    for run in runs:
        for step in ("first", "second"):
            times = done[f"{run['id']} {step}"]
            assert 1 <= times <= run["attempt"], f"{step} was done {times} times in {run['attempt']} leases"
        steps = victim.baton.get(f"/runs/{run['id']}/steps")["items"]
        assert [(step["position"], step["status"]) for step in steps] == [(0, "succeeded"), (1, "succeeded")]
    untouched = [run for run in runs if run["attempt"] == 1]
    assert untouched, "every run was hit: the test shows nothing of those that were not"


class Submitter(threading.Thread):
    """A client as the documentation wants it: it repeats what was not answered, with the same key."""

    def __init__(self, victim: Victim, task_id: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._baton = victim.baton
        self._path = f"/tasks/{task_id}/run_now"

    def run(self) -> None:
        for _ in range(_RUNS):
            self.acknowledged.append(self._submit(str(uuid4())))

    def _submit(self, key: str) -> str:
        while True:
            try:
                response = self._baton.call("POST", self._path, {}, Idempotency_Key=key)
            except requests.ConnectionError:
                time.sleep(0.1)
                continue
            if response.status_code == 200:
                run_id: str = response.json()["details"]["run_id"]
                return run_id
            assert response.status_code in (409, 503, 504), response.text
            time.sleep(float(response.headers.get("Retry-After", "0.1")))


def _all_finished(victim: Victim, task_id: str) -> list[dict[str, str]] | None:
    try:
        page = victim.baton.get(f"/runs?task_id={task_id}&limit=200")["items"]
    except (requests.ConnectionError, AssertionError):
        return None
    return page if len(page) >= _RUNS and all(run["finished_at"] for run in page) else None

"""A worker stands still until its run is another's, and then reports what it did as if nothing had happened."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Victim, lasting
from tests.support import replicas
from tests.support.baton import ROOT
from tests.support.waiting import wait_until

_ROLE = "outside"
_LEASE_AND_RESCUE_SECONDS = 30 + 5


@pytest.mark.timeout(180)
def test_what_it_says_is_refused_and_counted(victim: Victim) -> None:
    """P3: while another holds the run, and once that has finished it."""
    baton = victim.baton
    run_id = baton.run_now(victim.create("Taken over", {**lasting(hold=True), "save_as": "said"}, role=_ROLE))
    with _late_client(victim) as late:
        lease = late.answer()
        assert (lease["run_id"], lease["attempt"]) == (run_id, 1)
        late.await_standstill()
        with replicas.worker(baton, BATON_WORKER_ROLE=_ROLE) as other:
            # Only the end of the late one's lease gives it the run.
            wait_until(lambda: victim.begun(run_id) == [other.pid], timeout=_LEASE_AND_RESCUE_SECONDS + 25)
            assert victim.expired() == 1
            late.go_on()
            assert late.answer() == {"run_id": run_id, "accepted": False, "cancel_requested": False}
            held = baton.get(f"/runs/{run_id}")
            assert (held["status"], held["attempt"], held["output"]) == ("running", 2, None)
            assert baton.get(f"/runs/{run_id}/steps")["items"] == []

            late.await_standstill()
            victim.let_go()
            finished = baton.finished(run_id)
            (step,) = steps = baton.get(f"/runs/{run_id}/steps")["items"]
            late.go_on()
            assert late.answer() == {"run_id": run_id, "accepted": False, "cancel_requested": False}
    assert (finished["status"], finished["attempt"], step["attempt"]) == ("succeeded", 2, 2)
    assert finished["output"] == {"said": {"result": run_id}}
    assert (baton.get(f"/runs/{run_id}"), baton.get(f"/runs/{run_id}/steps")["items"]) == (finished, steps)
    wait_until(lambda: sum(event["count"] for event in victim.logged("tasks", "reports_refused")) == 2)


class _Late:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def await_standstill(self) -> None:
        stat = Path(f"/proc/{self._process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def _late_client(victim: Victim) -> Iterator[_Late]:
    token = (victim.baton.home / "keys" / "worker-token").read_text().strip()
    command = [sys.executable, "-m", "tests.chaos.late_client", victim.baton.url, token, _ROLE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _Late(process)
        finally:
            process.kill()

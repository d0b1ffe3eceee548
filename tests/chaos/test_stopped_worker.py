"""A worker that stands still for longer than its lease, and then goes on as if nothing had happened."""

import os
import signal
from datetime import datetime
from typing import Any

import pytest

from tests.chaos.conftest import Victim, note
from tests.support import replicas
from tests.support.waiting import wait_until

_LEASE_SECONDS = 30.0
_RESCUE_SECONDS = 5.0


@pytest.mark.timeout(240)
def test_its_run_is_rescued_and_what_it_says_later_is_refused(victim: Victim) -> None:
    """P3, P5 and P8."""
    baton = victim.baton
    task_id = victim.create("Keyed", note("${run.id}", 3), concurrency_key="only one", max_retries=0)
    held, waiting = baton.run_now(task_id), baton.run_now(task_id)
    wait_until(lambda: victim.effects() == [held])
    zombie = baton.children()["worker"]
    os.kill(zombie, signal.SIGSTOP)
    with replicas.worker(baton) as second:
        assert second.pid != zombie
        leased_until = _instant(baton.get(f"/runs/{held}")["leased_until"])
        blockers = baton.get(f"/runs/{waiting}/explain")["blockers"]
        assert [(blocker["code"], blocker["evidence"]["run_id"]) for blocker in blockers] == [
            ("concurrency_key_held", held)
        ]
        wait_until(lambda: baton.get(f"/runs/{held}")["attempt"] == 2, timeout=_LEASE_SECONDS + _RESCUE_SECONDS + 5)
        rescued_at = _instant(baton.get(f"/runs/{held}")["updated_at"])
        assert (rescued_at - leased_until).total_seconds() <= _RESCUE_SECONDS
        # The worker is alive again: its tool has answered long ago, and it reports that.
        os.kill(zombie, signal.SIGCONT)
        wait_until(lambda: '"reports_refused"' in baton.log("tasks") or _let_go(baton))
        runs = [baton.finished(run_id, timeout=40) for run_id in (held, waiting)]
    assert [(run["status"], run["attempt"]) for run in runs] == [("succeeded", 2), ("succeeded", 1)]
    assert victim.effects() == [held, held, waiting]
    assert _instant(runs[0]["finished_at"]) <= _instant(runs[1]["started_at"]), "two runs of one key at a time"
    (step,) = baton.get(f"/runs/{held}/steps")["items"]
    assert step["attempt"] == 2, "the step that the zombie did is not in the record"


def _let_go(baton: Any) -> bool:
    # It may also see for itself that its lease is gone, before it reports.
    return '"lease_lost"' in baton.log("worker")


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)

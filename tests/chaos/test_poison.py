"""A run that kills whoever does it: three workers, one after the other."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Victim, lasting, started
from tests.support import databases
from tests.support.waiting import wait_until

_CRASHES = 3
_RESCUE_SECONDS = 5.0
_LEASE_AND_RESCUE_SECONDS = 30 + 5


@pytest.mark.timeout(300)
def test_a_run_that_three_workers_died_of_is_tried_no_more(tmp_path: Path) -> None:
    """P2, P5 and P8, on both engines at a time: nearly all of it is waiting for leases to end."""

    def die(engine: str) -> None:
        (folder := tmp_path / engine).mkdir()
        with started(engine, folder) as victim:
            _die_of_one_run(victim)

    with ThreadPoolExecutor() as threads:
        for _ in threads.map(die, databases.ENGINES):
            pass


def _die_of_one_run(victim: Victim) -> None:
    """The reaper takes it back in time each time, and the next of its key comes when it has ended."""
    baton = victim.baton
    task_id = victim.create("Deadly", lasting(hold=True), concurrency_key="one", max_retries=10)
    deadly, waiting = baton.run_now(task_id), baton.run_now(task_id)
    workers: list[int] = []
    for attempt in range(1, _CRASHES + 1):
        # Begun by a new one each time: the supervisor has started it meanwhile.
        wait_until(lambda: len(victim.begun(deadly)) == attempt)  # noqa: B023
        workers.append(victim.begun(deadly)[-1])
        assert workers[-1] == baton.children()["worker"]
        os.kill(workers[-1], signal.SIGKILL)
        leased_until = _instant(baton.get(f"/runs/{deadly}")["leased_until"])
        run = wait_until(lambda: _after(baton, deadly, attempt), timeout=_LEASE_AND_RESCUE_SECONDS + 25)  # noqa: B023
        assert (_instant(run["updated_at"]) - leased_until).total_seconds() <= _RESCUE_SECONDS
    victim.let_go()

    assert (run["status"], run["error"]["class"], run["attempt"]) == ("failed", "poison", _CRASHES)
    assert victim.begun(deadly) == workers
    assert len(set(workers)) == _CRASHES
    assert sum(event["poisoned"] for event in victim.logged("tasks", "leases_expired")) == 1
    assert victim.expired() == _CRASHES
    after = baton.finished(waiting)
    assert (after["status"], after["attempt"]) == ("succeeded", 1)
    assert _instant(run["finished_at"]) <= _instant(after["started_at"]), "two runs of one key at a time"


def _after(baton: Any, run_id: str, attempt: int) -> Any:
    """The run, once it was leased again or has ended."""
    run = baton.get(f"/runs/{run_id}")
    return run if run["attempt"] > attempt or run["finished_at"] else None


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)

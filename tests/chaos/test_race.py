"""Three workers after the same runs, one of which is killed: who does what, how often, and when."""

import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.conftest import Victim, lasting, note
from tests.support import replicas
from tests.support.effects_server import Mark
from tests.support.waiting import wait_until

_KEY = "only one"
_RETRIES = 1
# A lease, the reaper, and what is left to do.
_RESCUE_SECONDS = 90
_LIVE_LEASES = "SELECT count(*) FROM {runs} WHERE concurrency_key = '{key}' AND lease_token IS NOT NULL"


@pytest.mark.timeout(240)
def test_attempts_are_accounted_for_and_keys_exclude(victim: Victim) -> None:
    """P2 and P5."""
    with ExitStack() as stack:
        others = [stack.enter_context(replicas.worker(victim.baton)) for _ in range(2)]
        leases = stack.enter_context(_watched_leases(victim.database_url))
        workers = {other.pid for other in others} | {victim.baton.children()["worker"]}
        _without_a_fault(victim, workers)
        _with_a_worker_killed(victim, workers)
    assert set(leases) == {0, 1}, "a key had more than one lease, or it was never looked while it had one"


def _without_a_fault(victim: Victim, workers: set[int]) -> None:
    keyed = _start(victim, 20, "Keyed", lasting(0.02), concurrency_key=_KEY)
    plain = _start(victim, 20, "Plain", note("${run.id} first"), note("${run.id} second"))
    refused = _start(victim, 4, "Refused", _refusing(), max_retries=_RETRIES, backoff_strategy="fixed")
    finished = {run_id: victim.baton.finished(run_id, 60) for run_id in (*keyed, *plain, *refused)}

    attempts = {run_id: run["attempt"] for run_id, run in finished.items()}
    assert attempts == dict.fromkeys((*keyed, *plain), 1) | dict.fromkeys(refused, 1 + _RETRIES)
    statuses = {run_id: run["status"] for run_id, run in finished.items()}
    assert statuses == dict.fromkeys((*keyed, *plain), "succeeded") | dict.fromkeys(refused, "failed")
    once = {f"{run_id} {step}": 1 for run_id in plain for step in ("first", "second")}
    assert Counter(victim.effects()) == once | dict.fromkeys(refused, 1 + _RETRIES)
    marks = victim.marks()
    assert Counter(mark.text for mark in marks) == dict.fromkeys(keyed, 2)
    assert _overlaps(marks) == []
    assert {mark.worker for mark in marks} <= workers
    assert victim.expired() == 0


def _with_a_worker_killed(victim: Victim, workers: set[int]) -> None:
    before = len(victim.marks())
    # The key's holder, and others that are under way: what is queued cannot be leased while the worker dies.
    (held,) = _start(victim, 1, "Holder", lasting(hold=True), concurrency_key=_KEY)
    steps = (lasting(hold=True), _refusing())
    refused = _start(victim, 6, "Held and refused", *steps, max_retries=_RETRIES, backoff_strategy="fixed")
    wait_until(lambda: all(victim.begun(run_id) for run_id in (held, *refused)))
    keyed = _start(victim, 6, "Keyed later", lasting(0.02), concurrency_key=_KEY)
    (killed,) = victim.begun(held)
    assert killed in workers
    lost = [run_id for run_id in (held, *refused) if victim.begun(run_id) == [killed]]
    os.kill(killed, signal.SIGKILL)
    victim.let_go()
    runs = {run_id: victim.baton.finished(run_id, _RESCUE_SECONDS) for run_id in (held, *refused, *keyed)}

    assert {run_id for run_id, run in runs.items() if run["status"] == "failed"} == set(refused)
    wait_until(lambda: victim.expired() == len(lost))
    granted = dict.fromkeys(refused, _RETRIES)
    attempts = {run_id: run["attempt"] for run_id, run in runs.items()}
    assert attempts == {run_id: 1 + lost.count(run_id) + granted.get(run_id, 0) for run_id in runs}
    marks = victim.marks()[before:]
    begun, done = Counter(mark.text for mark in marks if mark.begins), Counter(victim.effects())
    assert begun == {run_id: 1 + lost.count(run_id) for run_id in runs}
    assert {run_id: done[run_id] for run_id in refused} == dict.fromkeys(refused, 1 + _RETRIES)
    # What the dead one had begun may seem to go on for ever; nothing else of the key overlaps.
    of_key = [mark for mark in marks if mark.text in (held, *keyed)]
    assert {earlier for earlier, _ in _overlaps(of_key)} <= {Mark(True, killed, held)}
    assert not _overlaps([mark for mark in of_key if mark.worker != killed])


def _start(victim: Victim, count: int, title: str, *steps: dict[str, Any], **fields: Any) -> list[str]:
    task_id = victim.create(title, *steps, **fields)
    return [victim.baton.run_now(task_id) for _ in range(count)]


def _refusing() -> dict[str, Any]:
    return {"uses": "effects.refuse", "with": {"text": "${run.id}"}}


def _overlaps(marks: list[Mark]) -> list[tuple[Mark, Mark]]:
    """Beginnings at which something else had begun and not ended: that, and what began."""
    found, under_way = [], set()
    for mark in marks:
        if mark.begins:
            found += [(earlier, mark) for earlier in under_way]
            under_way.add(mark)
        else:
            under_way.discard(Mark(True, mark.worker, mark.text))
    return found


@contextmanager
def _watched_leases(database_url: str) -> Iterator[Counter[int]]:
    """Looks into the database all the time: how often so many leases of the key were there."""
    seen, stop, failures = Counter[int](), threading.Event(), list[Exception]()

    def look() -> None:
        try:
            with _lease_count(database_url) as count:
                while not stop.wait(0.01):
                    seen[count()] += 1
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)
    assert failures == []


@contextmanager
def _lease_count(database_url: str) -> Iterator[Callable[[], int]]:
    """What counts the leases of the key."""
    if database_url.startswith("sqlite"):
        path = Path(database_url.removeprefix("sqlite:///")) / "tasks.db"
        query = _LIVE_LEASES.format(runs="runs", key=_KEY)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as reader:
            yield lambda: reader.execute(query).fetchone()[0]
    else:
        query = _LIVE_LEASES.format(runs="tasks.runs", key=_KEY)
        with psycopg.connect(database_url, autocommit=True) as connection:
            yield lambda: connection.execute(query.encode()).fetchone()[0]  # type: ignore[index]

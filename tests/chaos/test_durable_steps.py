"""What was done is done: no step, and no item of one, is called again once it is recorded, and nothing unapproved."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.chaos.conftest import Victim, note, started
from tests.support import databases
from tests.support.baton import Baton
from tests.support.waiting import wait_until

_LEASE_AND_RESCUE_SECONDS = 30 + 5


@pytest.mark.timeout(300)
def test_killed_between_effect_and_report_and_while_people_are_asked(tmp_path: Path) -> None:
    """The durable-step promise and P6, on both engines at a time: most of it is waiting for leases to end."""

    def die(engine: str) -> None:
        (folder := tmp_path / engine).mkdir()
        with started(engine, folder) as victim:
            _die_between_effect_and_report(victim)
            _die_while_somebody_is_asked(victim)

    with ThreadPoolExecutor() as threads:
        for _ in threads.map(die, databases.ENGINES):
            pass


def _die_between_effect_and_report(victim: Victim) -> None:
    """A worker dies when the fourth item has had its effect and is not recorded: that alone happens again."""
    baton = victim.baton
    seconds = [{"text": f"item {index}", "seconds": 10 if index == 3 else 0} for index in range(6)]
    each = note("${item.text}", foreach={"items": seconds}, id="each", save_as="all")
    each["with"]["seconds"] = "${item.seconds}"
    run_id = baton.run_now(victim.create("Items", note("before"), each, note("after ${length(steps.all)}")))
    wait_until(lambda: "item 3" in victim.effects())
    wait_until(lambda: len(_items(baton, run_id)) == 3)
    recorded = _items(baton, run_id)
    baton.kill("worker")
    wait_until(lambda: victim.effects().count("item 3") == 2, timeout=_LEASE_AND_RESCUE_SECONDS + 30)
    run = baton.finished(run_id, timeout=90)
    assert (run["status"], run["attempt"]) == ("succeeded", 2)
    assert run["output"] == {"all": [{"result": f"item {index}"} for index in range(6)]}
    once = ["before", "after 6", *(f"item {index}" for index in (0, 1, 2, 4, 5))]
    assert Counter(victim.effects()) == Counter(dict.fromkeys(once, 1) | {"item 3": 2})
    assert _items(baton, run_id)[:3] == recorded, "an item that had succeeded was recorded again"


def _die_while_somebody_is_asked(victim: Victim) -> None:
    """Worker and tasks service die while a run waits: the step is begun when it is approved, and never when not."""
    baton, approver = victim.baton, victim.baton.agent_token(["approvals:read", "approvals:decide"])
    gated = note("paid ${params.who}", approval={"expires_seconds": 600}, id="pay")
    task_id = victim.create("Gated", note("asked"), gated, params={"who": "Ana"})
    yes, no = baton.run_now(task_id), baton.run_now(task_id)
    for run_id in (yes, no):
        wait_until(lambda: baton.get(f"/runs/{run_id}")["status"] == "awaiting_approval")  # noqa: B023
    assert _decide(baton, no, "approve", baton.admin_token).status_code == 403
    baton.kill("worker")
    baton.kill("tasks")
    wait_until(baton.is_ready)
    assert victim.effects().count("asked") == 2
    assert "paid Ana" not in victim.effects()
    assert _decide(baton, yes, "approve", approver).status_code == 200
    assert _decide(baton, no, "reject", approver).status_code == 200
    assert baton.finished(yes, timeout=60)["status"] == "succeeded"
    refused = baton.finished(no, timeout=60)
    assert (refused["status"], refused["error"]["class"]) == ("failed", "approval_rejected")
    assert victim.effects().count("paid Ana") == 1
    assert victim.effects().count("asked") == 2


def _items(baton: Baton, run_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = baton.get(f"/runs/{run_id}/steps/each/items")["items"]
    return items


def _decide(baton: Baton, run_id: str, verb: str, token: str) -> requests.Response:
    (approval,) = baton.get(f"/approvals?run_id={run_id}")["items"]
    return baton.call("POST", f"/approvals/{approval['id']}/{verb}", {}, token=token)

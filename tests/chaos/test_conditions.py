"""A worker is killed with -9 in the middle of a probe: another one does it, and what that tells counts once."""

from typing import Any

import pytest

from tests.chaos.conftest import Victim
from tests.support.waiting import wait_until

_TIMEOUT_SECONDS = 6
_LEASE_SECONDS = 60 + _TIMEOUT_SECONDS


@pytest.mark.timeout(240)
def test_the_probe_of_a_killed_worker_is_done_by_another(victim: Victim) -> None:
    probe = {"uses": "effects.last", "with": {"text": "probe", "hold": True}, "timeout_seconds": _TIMEOUT_SECONDS}
    task_id = victim.create(
        "Watch",
        {"uses": "effects.note", "with": {"text": "fired on ${event.result.result}"}},
        schedule_kind="condition",
        schedule_expr="result.result == 'probe'",
        condition={"probe": probe, "every_seconds": 86_400},
    )

    def told() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = victim.baton.get(f"/tasks/{task_id}/evaluations")["items"]
        return items

    wait_until(lambda: victim.begun("probe"))
    victim.baton.kill("worker")
    victim.let_go()
    assert told() == []

    wait_until(told, timeout=_LEASE_SECONDS + 20)
    (evaluation,) = told()
    assert (evaluation["number"], evaluation["holds"], evaluation["outcome"]) == (1, True, "ran"), evaluation
    wait_until(victim.effects)
    assert victim.effects() == ["fired on probe"]
    assert len(victim.begun("probe")) == 2

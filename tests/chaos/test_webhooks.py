"""The tasks service dies while events are on their way to a webhook: all of them arrive."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.chaos.conftest import started
from tests.support import databases
from tests.support.receiver import receiving
from tests.support.waiting import wait_until

_EVENTS = 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", databases.ENGINES)
def test_what_was_pending_or_being_sent_arrives_after_a_kill(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_EGRESS_ALLOW", "loopback")
    with receiving() as receiver, started(engine, tmp_path) as victim:
        baton = victim.baton
        made = baton.create("/webhooks", {"url": receiver.url, "topics": ["order.*", "run.awaiting_approval"]})
        path = f"/webhooks/{made['webhook']['id']}/deliveries"
        receiver.may_answer.clear()
        events = [_publish(baton, number) for number in range(_EVENTS)]
        wait_until(lambda: receiver.requests)
        os.kill(baton.children()["tasks"], signal.SIGKILL)
        receiver.may_answer.set()
        wait_until(lambda: "tasks" in baton.children())
        run = _report_awaiting(baton)
        wait_until(lambda: _count(baton, f"{path}?status=delivered") == _EVENTS + 1, timeout=120)
        deliveries = baton.get(f"{path}?limit=200")["items"]
        row = baton.get(f"/runs/{run}")
        log = baton.log("tasks")
    assert sorted(one["event_id"] for one in deliveries if one["topic"] == "order.created") == sorted(events)
    told = [Webhook(made["secret"]).verify(body, headers) for headers, body in receiver.requests]
    assert {item["data"]["number"] for item in told if item["type"] == "order.created"} == set(range(_EVENTS))
    assert {headers["webhook-id"] for headers, _ in receiver.requests} == {one["id"] for one in deliveries}
    assert run in {item["data"].get("run_id") for item in told}
    assert row["webhook_notified_at"] is not None
    assert made["secret"].removeprefix("whsec_") not in log


def _publish(baton: Any, number: int) -> str:
    answer = baton.call("POST", "/events", {"topic": "order.created", "payload": {"number": number}})
    assert answer.status_code == 202, answer.text
    event_id: str = answer.json()["details"]["event_id"]
    return event_id


def _report_awaiting(baton: Any) -> str:
    """A run that a script reports to wait for approval, as soon as the service answers again."""
    report = {"task": "code.review", "run_id": "nightly", "status": "awaiting_approval"}
    answer = wait_until(lambda: _created(baton.call("POST", "/agents/tasks/", report)))
    run_id: str = answer["id"]
    return run_id


def _created(answer: Any) -> Any:
    return answer.json() if answer.status_code == 201 else None


def _count(baton: Any, path: str) -> int:
    answer = baton.call("GET", path)
    return len(answer.json()["items"]) if answer.status_code == 200 else 0

"""An agent with a `webhook_url` is told of what becomes of its runs, signed, until the URL is cleared."""

import json
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.e2e.conftest import StartBaton
from tests.support.baton import Baton, task
from tests.support.receiver import receiving
from tests.support.waiting import wait_until


@pytest.mark.timeout(120)
def test_an_agent_is_told_of_its_own_runs(start_baton: StartBaton) -> None:
    baton = start_baton(BATON_EGRESS_ALLOW="loopback")
    with receiving() as receiver:
        agent = baton.create("/agents", {"name": "ada", "scopes": ["tasks:write"], "webhook_url": receiver.url})
        token = baton.create(f"/agents/{agent['id']}/tokens", {})["token"]
        webhook = wait_until(lambda: _webhook(baton, agent["id"]))
        secret = baton.call("POST", f"/webhooks/{webhook['id']}/rotate-secret", {}).json()["secret"]
        _run(baton, baton.admin_token)
        run_id = _run(baton, token)

        wait_until(lambda: receiver.requests)
        (headers, body) = receiver.requests[0]
        told = Webhook(secret).verify(body, headers)
        assert (told["type"], told["data"]["run_id"]) == ("run.succeeded", run_id)

        cleared = baton.call("PATCH", f"/agents/{agent['id']}", {"webhook_url": None})
        assert cleared.status_code == 200, cleared.text
        wait_until(lambda: _webhook(baton, agent["id"])["enabled"] is False)
        _run(baton, token)
        assert [json.loads(sent)["data"]["run_id"] for _, sent in receiver.requests] == [run_id]


def _webhook(baton: Baton, agent_id: str) -> Any:
    return next((one for one in baton.get("/webhooks")["items"] if one["agent_id"] == agent_id), None)


def _run(baton: Baton, token: str) -> str:
    created = baton.call("POST", "/tasks", task("Told", {"uses": "echo.test"}), token=token).json()
    started = baton.call("POST", f"/tasks/{created['id']}/run_now", {}, token=token).json()
    run_id: str = started["details"]["run_id"]
    baton.finished(run_id)
    return run_id

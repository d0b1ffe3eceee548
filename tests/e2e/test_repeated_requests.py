"""A request with an Idempotency-Key is done once, whichever route it takes and whatever it changes."""

from typing import Any

import pytest
from requests import Response

from services.chassis.ids import new_id
from tests.e2e.test_audit_rows import DECIDED, REST, World, calls
from tests.support.baton import Baton

_SHOWN_ONCE = {
    # A secret is told once and stored nowhere: a repetition is refused with 409, and does nothing.
    "sessions.v1.AgentService.CreateToken",
    "sessions.v1.AgentService.RotateToken",
    "sessions.v1.CredentialService.CreateCredentials",
    "sessions.v1.CredentialService.ObtainToken",
    "sessions.v1.CredentialService.RefreshToken",
    "tasks.v1.WebhookService.CreateWebhook",
    "tasks.v1.WebhookService.RotateWebhookSecret",
}

_OTHERWISE: dict[str, dict[str, Any]] = {
    "/tasks": {"title": "other"},
    "/tasks/route": {"target": "other"},
    "/tasks/notify": {"target": "other"},
    "/runs:prune": {"before": "2001-01-02T00:00:00Z"},
    "/agents/tasks/": {"run_id": "nightly-2"},
    "/events": {"payload": {"other": True}},
    "/webhooks": {"topics": ["other.topic"]},
    "/orchestrator": {"scopes": ["tasks:write"]},
    "/sessions": {"agent_role": "other"},
    "/prompts": {"prompt_text": "something else"},
    "/orchestrator/chat": {"message": "something else"},
    "/audit/ingest": {"action": "dropped"},
}
"""What makes another request of one to these paths, whose requests are all alike."""
_WHO_IS_SAID_INSIDE = {
    "sessions.v1.CredentialService.ObtainToken",
    "sessions.v1.CredentialService.RefreshToken",
    "sessions.v1.CredentialService.SurrenderToken",
}
"""The caller is whose secret or token is in the request, whoever sends it."""
_ALL_ALIKE = {"sessions.v1.OrchestratorService.ResetContext"}
"""They say nothing but that they are to be done."""


@pytest.fixture(scope="module")
def world(baton: Baton) -> World:
    return World(baton)


def test_every_change_is_made_once_for_each_key(world: World) -> None:
    baton, other_admin = world.baton, world.baton.agent_token(["admin"])
    for name, call in calls(world).items():
        key, (method, path, body) = new_id(), call()
        token = world.approver if name.endswith(DECIDED) else None
        first, again = [baton.call(method, path, body, token=token, Idempotency_Key=key) for _ in range(2)]
        assert first.ok, (name, first.text)
        if name in _SHOWN_ONCE:
            assert (again.status_code, again.json()["reason"]) == (409, "ANSWER_NOT_REPEATABLE"), (name, again.text)
        else:
            assert (again.status_code, _told(again)) == (first.status_code, _told(first)), name
            assert again.headers["Idempotent-Replayed"] == "true", name
        assert "Idempotent-Replayed" not in first.headers, name
        if name in _ALL_ALIKE:
            continue
        method, path, body = _another(call(), (method, path, body))
        reused = baton.call(method, path, body, token=token, Idempotency_Key=key)
        assert (reused.status_code, reused.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED"), (name, reused.text)
        if name in _WHO_IS_SAID_INSIDE:
            continue
        somebody_elses = baton.call(method, path, body, token=other_admin, Idempotency_Key=key)
        assert somebody_elses.status_code != 422, (name, somebody_elses.text)
        assert "Idempotent-Replayed" not in somebody_elses.headers, name


def _told(answer: Response) -> Any:
    return answer.json() if answer.content else None


def _another(new: REST, earlier: REST) -> REST:
    """A good request to the same method which is not the earlier one."""
    method, path, body = new
    if new != earlier:
        return new
    if body is None:
        return method, path.replace("2001-01-01", "2001-01-02").replace("8000", "8001"), None
    return method, path, body | _OTHERWISE[path]

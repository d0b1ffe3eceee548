"""What an agent can be at, and what is kept of it."""

from datetime import UTC, datetime

import pytest

from services.sessions.models.agent import Agent, AgentStatus, NewAgent, merged

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LEGAL = {
    ("idle", "executing"), ("idle", "complete"),
    ("executing", "idle"), ("executing", "waiting"), ("executing", "blocked"), ("executing", "complete"),
    ("waiting", "idle"), ("waiting", "executing"), ("waiting", "blocked"),
    ("blocked", "idle"), ("blocked", "executing"),
    ("complete", "idle"), ("complete", "executing"),
}  # fmt: skip


def test_what_can_follow_what_is_as_the_contract_says() -> None:
    assert {(old.value, new.value) for old in AgentStatus for new in old.followers} == LEGAL


@pytest.mark.parametrize("status", AgentStatus)
def test_every_status_can_be_left(status: AgentStatus) -> None:
    assert status.followers
    assert status not in status.followers


def test_metadata_is_merged_name_by_name() -> None:
    kept = {"a": 1, "b": {"x": 1}, "c": [1]}
    assert merged(kept, {"b": {"y": 2}, "c": None, "d": False}) == {"a": 1, "b": {"y": 2}, "d": False}
    assert merged(kept, {}) == kept
    assert merged({}, {"gone": None, "nested": {"stays": None}}) == {"nested": {"stays": None}}


def test_a_webhook_s_url_is_not_in_what_a_log_would_print() -> None:
    url = "https://example.com/hook?key=hidden"
    agent = Agent(id="id", name="scribe", scopes=(), created_at=NOON, updated_at=NOON, webhook_url=url)
    assert "hidden" not in repr(agent)
    assert "hidden" not in repr(NewAgent(name="scribe", scopes=(), webhook_url=url))

"""Logs, prompts and chat are kept for so many days, and no longer."""

from dataclasses import replace

import pytest
from baton.sessions.v1 import feed_service_pb2 as pb
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest
from baton.sessions.v1.log_service_pb2 import TailAgentLogsRequest
from sqlalchemy import Table

from services.chassis.config import ConfigurationError
from services.sessions.config import Settings
from services.sessions.log_retention import LogRetention
from services.sessions.operations import log_retention
from services.sessions.service import build
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions
from tests.integration.sessions.test_feed import listed, logged, noted, orchestrator, said
from tests.integration.sessions.test_prompts import recorded

KEPT: dict[str, Table] = {
    "agent_logs": tables.agent_logs,
    "system_logs": tables.system_logs,
    "chat_messages": tables.chat_messages,
    "prompts": tables.prompts,
    "agent_log_heads": tables.agent_log_heads,
}
DAY = 86_400


async def counts(sessions: Sessions) -> dict[str, int]:
    return {name: await sessions.count(table) for name, table in KEPT.items()}


async def test_what_is_older_goes_and_what_is_not_stays(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several batches, so that the work is cut as it is when there is much.
    monkeypatch.setattr(log_retention, "BATCH", 2)
    monkeypatch.setattr("services.sessions.log_retention.BATCH", 2)
    await orchestrator(sessions)
    agent, archived = await sessions.agent(), await sessions.agent()
    await logged(sessions, agent, *"abcde", task_slug="goes on")
    await logged(sessions, archived, "old", task_slug="over")
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=archived.id))
    for number in range(3):
        await noted(sessions, str(number))
        await said(sessions, str(number))
        await recorded(sessions, prompt_text=str(number))
    sessions.clock.advance(seconds=8 * DAY)
    await logged(sessions, agent, "new", task_slug="goes on")
    await noted(sessions, "new")
    await said(sessions, "new")
    await recorded(sessions, prompt_text="new")
    retention = LogRetention(sessions.database, days=7)
    assert await retention.step() == 600
    assert await counts(sessions) == dict.fromkeys(KEPT, 1)
    assert await listed(sessions) == ["new", "new", "new"]
    [audited] = [one for one in await sessions.audited() if one["action"] == "logs.prune"]
    assert audited["actor"] == "baton.retention"
    told = {"agent_logs": 6, "system_logs": 3, "chat_messages": 3, "prompts": 3, "agent_log_heads": 1}
    assert {name: audited["after"][name] for name in told} == told
    # Nothing more to do is nothing to tell.
    await retention.step()
    assert len([one for one in await sessions.audited() if one["action"] == "logs.prune"]) == 1


async def test_numbers_go_on_after_the_old_ones_went(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await logged(sessions, agent, "a", "b")
    sessions.clock.advance(seconds=4 * DAY)
    await logged(sessions, agent, "c")
    sessions.clock.advance(seconds=4 * DAY)
    await LogRetention(sessions.database, days=7).step()
    await logged(sessions, agent, "d")
    tail = await sessions.logs().TailAgentLogs(TailAgentLogsRequest(agent_id=agent.id))
    assert [item.entry_index for item in tail.items] == [2, 3]
    assert tail.next_index == 4


async def test_who_comes_back_too_late_is_told_so(sessions: Sessions) -> None:
    await noted(sessions, "old")
    await noted(sessions, "old")
    sessions.clock.advance(seconds=8 * DAY)
    await noted(sessions, "new")
    await LogRetention(sessions.database, days=7).step()
    stub = sessions.feed(["logs:read"])
    for after, resync in ((0, True), (1, True), (2, False), (3, False)):
        call = stub.WatchFeed(pb.WatchFeedRequest(after=after))
        assert (await anext(aiter(call))).resync is resync
        call.cancel()


async def test_nothing_goes_where_everything_is_kept(sessions: Sessions) -> None:
    await noted(sessions, "old")
    sessions.clock.advance(seconds=10_000 * DAY)
    await LogRetention(sessions.database, days=0).step()
    assert await listed(sessions) == ["old"]


@pytest.mark.parametrize("days", [-1, 36_501])
async def test_a_number_of_days_that_makes_no_sense_stops_the_start(settings: Settings, days: int) -> None:
    with pytest.raises(ConfigurationError, match="BATON_LOG_RETENTION_DAYS"):
        build(replace(settings, log_retention_days=days))

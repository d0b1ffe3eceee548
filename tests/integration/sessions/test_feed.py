"""Logs and chat, merged."""

import asyncio
from typing import Any

import pytest
from baton.sessions.v1 import feed_service_pb2 as pb
from baton.sessions.v1.agent_pb2 import Agent
from baton.sessions.v1.chat_service_pb2 import SendChatMessageRequest
from baton.sessions.v1.log_service_pb2 import (
    AppendAgentLogsRequest,
    AppendSystemLogsRequest,
    NewAgentLog,
    NewSystemLog,
)
from baton.sessions.v1.orchestrator_service_pb2 import EnsureOrchestratorRequest

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.timestamps import to_timestamp
from tests.integration.sessions.running import Sessions


async def orchestrator(sessions: Sessions) -> Agent:
    request = EnsureOrchestratorRequest(scopes=["agents:admin"])
    return (await sessions.orchestration(["admin"]).EnsureOrchestrator(request)).orchestrator


async def logged(sessions: Sessions, agent: Agent, *contents: str, task_slug: str = "work") -> None:
    entries = [
        NewAgentLog(task_slug=task_slug, event_category="EVENT_CATEGORY_RESPONSE", event_type="text", content=content)
        for content in contents
    ]
    await sessions.logs().AppendAgentLogs(AppendAgentLogsRequest(agent_id=agent.id, entries=entries))


async def noted(sessions: Sessions, message: str, agent_id: str | None = None) -> None:
    entry = NewSystemLog(level="LOG_LEVEL_INFO", message=message)
    await sessions.logs(["logs:write"], agent_id).AppendSystemLogs(AppendSystemLogsRequest(entries=[entry]))


async def said(sessions: Sessions, message: str, **fields: Any) -> None:
    await sessions.chat().SendChatMessage(SendChatMessageRequest(message=message, **fields))


def text(entry: pb.FeedEntry) -> str:
    """What an entry says, whichever it is."""
    sides = [name for name in ("agent_log", "system_log", "orchestrator_chat") if entry.HasField(name)]
    assert [pb.FeedSource.Name(entry.source_type)] == [f"FEED_SOURCE_{side.upper()}" for side in sides]
    one = getattr(entry, sides[0])
    assert one.position == entry.position
    return str(one.content if sides == ["agent_log"] else one.message)


async def listed(sessions: Sessions, limit: int = 200, **fields: Any) -> list[str]:
    """All pages."""
    reader, items, request = sessions.feed(["logs:read"]), [], pb.ListFeedRequest(limit=limit, **fields)
    while True:
        page = await reader.ListFeed(request)
        items += page.items
        assert [item.position for item in items] == sorted((item.position for item in items), reverse=True)
        if not page.has_more:
            return [text(item) for item in items]
        request.cursor = page.next_cursor


async def events(sessions: Sessions, **fields: Any) -> list[str]:
    answer = await sessions.feed(["logs:read"]).GetEvents(pb.GetEventsRequest(**fields))
    assert answer.count == len(answer.events)
    return [text(item) for item in answer.events]


async def test_what_happens_is_merged_in_its_order(sessions: Sessions) -> None:
    await orchestrator(sessions)
    agent = await sessions.agent()
    await noted(sessions, "1")
    await logged(sessions, agent, "2", "3")
    await said(sessions, "4")
    await noted(sessions, "5")
    await logged(sessions, agent, "6")
    for limit in (1, 2, 3, 200):
        assert await listed(sessions, limit) == ["6", "5", "4", "3", "2", "1"]


async def test_a_page_neither_skips_nor_repeats_while_more_comes(sessions: Sessions) -> None:
    agent = await sessions.agent()
    for number in range(6):
        await (logged(sessions, agent, str(number)) if number % 2 else noted(sessions, str(number)))
    reader = sessions.feed(["logs:read"])
    seen, cursor = [], ""
    for _ in range(3):
        page = await reader.ListFeed(pb.ListFeedRequest(limit=2, cursor=cursor))
        seen += [text(item) for item in page.items]
        cursor = page.next_cursor
        await noted(sessions, "meanwhile")
        await logged(sessions, agent, "meanwhile")
    assert seen == ["5", "4", "3", "2", "1", "0"]


async def test_each_filter_finds_its_own(sessions: Sessions) -> None:
    boss, agent = await orchestrator(sessions), await sessions.agent()
    await logged(sessions, agent, "log", task_slug="fix-it")
    await noted(sessions, "note", agent.id)
    await said(sessions, "to boss")
    sessions.clock.advance(seconds=60)
    middle = to_timestamp(sessions.clock.now())
    await said(
        sessions,
        "to agent",
        sender_type="CHAT_PARTY_ORCHESTRATOR",
        receiver_type="CHAT_PARTY_AGENT",
        agent_id=agent.id,
    )
    await noted(sessions, "other")
    for limit in (1, 200):
        assert await listed(sessions, limit, source_type=["FEED_SOURCE_AGENT_LOG"]) == ["log"]
        chat_and_notes = ["FEED_SOURCE_ORCHESTRATOR_CHAT", "FEED_SOURCE_SYSTEM_LOG"]
        assert await listed(sessions, limit, source_type=chat_and_notes) == ["other", "to agent", "to boss", "note"]
        assert await listed(sessions, limit, agent_id=agent.id.upper()) == ["to agent", "note", "log"]
        assert await listed(sessions, limit, agent_id=boss.id) == ["to agent", "to boss"]
        assert await listed(sessions, limit, task_slug="fix-it") == ["log"]
        assert await listed(sessions, limit, task_slug="fix-it", agent_id=boss.id) == []
        assert await listed(sessions, limit, since=middle) == ["other", "to agent"]
        assert await listed(sessions, limit, until=middle) == ["to boss", "note", "log"]
        assert await listed(sessions, limit, agent_id=new_id()) == []
        nothing_of_it = {"source_type": ["FEED_SOURCE_SYSTEM_LOG"], "task_slug": "fix-it"}
        assert await listed(sessions, limit, **nothing_of_it) == []


async def test_earlier_clients_get_the_newest_in_order(sessions: Sessions) -> None:
    await orchestrator(sessions)
    agent = await sessions.agent()
    await logged(sessions, agent, "1", "2")
    await noted(sessions, "3")
    await said(sessions, "4")
    await logged(sessions, agent, "5", task_slug="other")
    # `all` is all but the system log, as it was.
    assert await events(sessions) == await events(sessions, event_types="all") == ["1", "2", "4", "5"]
    assert await events(sessions, event_types="system_logs,agent_logs") == ["1", "2", "3", "5"]
    assert await events(sessions, event_types="orchestrator_chat") == ["4"]
    assert await events(sessions, limit=2) == ["4", "5"]
    # Pages are of the whole, not of each source by itself.
    assert await events(sessions, limit=2, offset=2) == ["1", "2"]
    assert await events(sessions, limit=2, offset=3) == ["1"]
    assert await events(sessions, agent_id=agent.id, task_slug="other") == ["5"]
    for fields, field in (
        ({"event_types": "agent_logs,everything"}, "event_types"),
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"offset": 10_001}, "offset"),
        ({"agent_id": "7"}, "agent_id"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await events(sessions, **fields)
        assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_cursor_fits_its_filters_alone(sessions: Sessions) -> None:
    await noted(sessions, "1")
    await noted(sessions, "2")
    reader = sessions.feed(["logs:read"])
    page = await reader.ListFeed(pb.ListFeedRequest(limit=1))
    for fields in ({"cursor": page.next_cursor, "task_slug": "x"}, {"cursor": "made up"}):
        with pytest.raises(InvalidArgument) as refused:
            await reader.ListFeed(pb.ListFeedRequest(**fields))
        assert refused.value.reason == "CURSOR_INVALID"


async def test_many_who_write_at_once_have_one_order_without_gaps(sessions: Sessions) -> None:
    await orchestrator(sessions)
    agents = [await sessions.agent() for _ in range(3)]
    writing = [logged(sessions, agents[n % 3], "log", "log") for n in range(10)]
    writing += [noted(sessions, "note") for _ in range(10)] + [said(sessions, "chat") for _ in range(5)]
    await asyncio.gather(*writing)
    page = await sessions.feed(["logs:read"]).ListFeed(pb.ListFeedRequest(limit=200))
    assert [item.position for item in page.items] == list(range(35, 0, -1))

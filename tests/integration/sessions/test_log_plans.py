"""However much is logged, little is read for a page of it."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.sessions.models.chat import ChatFilter
from services.sessions.models.feed import FeedFilter, FeedSource
from services.sessions.models.log import (
    AgentBatch,
    AgentLogFilter,
    EventCategory,
    LogLevel,
    NewAgentLog,
    NewSystemLog,
    SystemBatch,
    SystemLogFilter,
)
from services.sessions.operations import feed as operations
from services.sessions.operations import log
from services.sessions.store import agent_log, chat, feed, system_log
from tests.integration.sessions.running import Sessions
from tests.integration.tasks.planning import plans

LIMIT = 20
RARE_WORKFLOW = new_id()


def agent_entry(**fields: Any) -> NewAgentLog:
    common: dict[str, Any] = {
        "task_slug": "common",
        "session_id": "common",
        "event_category": EventCategory.RESPONSE,
        "event_type": "text",
        "content": "x" * 100,
        "payload": None,
        "summary": "",
        "workflow_id": None,
        "workflow_step": "",
        "timestamp": None,
    }
    return NewAgentLog(**common | fields)


def line(**fields: Any) -> NewSystemLog:
    common: dict[str, Any] = {
        "level": LogLevel.INFO,
        "message": "x" * 100,
        "file_path": "",
        "summary": "",
        "metadata": None,
        "workflow_id": None,
        "workflow_step": "",
        "timestamp": None,
    }
    return NewSystemLog(**common | fields)


def fill(connection: Connection, clock: Clock, agent_id: str, other_id: str) -> None:
    """What is rare is old, with much that is common on top of it."""
    rare = {"session_id": "rare", "task_slug": "rare", "workflow_id": RARE_WORKFLOW, "event_type": "rare"}
    old = [agent_entry(**rare, event_category=EventCategory.HOOK) for _ in range(3)]
    batches = [AgentBatch(agent_id, old), AgentBatch(agent_id, [agent_entry()] * 3000)]
    log.append_agent_logs(connection, [*batches, AgentBatch(other_id, [agent_entry()] * 3000)], clock)
    lines = [line(level=LogLevel.ERROR, workflow_id=RARE_WORKFLOW)] * 3
    log.append_system_logs(connection, [SystemBatch(agent_id, lines), SystemBatch(other_id, [line()] * 3000)], clock)


@pytest.fixture
async def full(sessions: Sessions, engine: str, database_url: str) -> tuple[Sessions, str]:
    """A service with many logs, and the agent that has some of them."""
    agent, other = await sessions.agent(), await sessions.agent()
    await sessions.database.transact(partial(fill, agent_id=agent.id, other_id=other.id))
    if engine == "postgres":
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) sessions.agent_logs, sessions.system_logs, sessions.agent_log_heads")
    return sessions, agent.id


def pages(agent_id: str) -> Iterator[Callable[[Connection, Clock], Any]]:
    """Everything that reads a page."""
    wanted = partial(AgentLogFilter, agent_id)
    for filters in (
        wanted(),
        wanted(task_slug="rare"),
        wanted(event_category=EventCategory.HOOK),
        wanted(event_types=("rare",)),
        wanted(session_id="rare"),
        wanted(workflow_id=RARE_WORKFLOW),
    ):
        yield lambda connection, clock, f=filters: agent_log.list_entries(connection, f, limit=LIMIT)  # type: ignore[misc]
        yield lambda connection, clock, f=filters: agent_log.list_entries(connection, f, limit=LIMIT, before=4000)  # type: ignore[misc]
    yield lambda connection, clock: agent_log.list_entries(connection, wanted(since=clock.now()), limit=LIMIT)
    yield lambda connection, clock: agent_log.tail(connection, agent_id, "common", limit=LIMIT, offset=0)
    yield lambda connection, clock: agent_log.latest_slug(connection, agent_id)
    for lines in (
        SystemLogFilter(),
        SystemLogFilter(levels=(LogLevel.ERROR,)),
        SystemLogFilter(agent_id=agent_id),
        SystemLogFilter(workflow_id=RARE_WORKFLOW),
    ):
        yield lambda connection, clock, f=lines: system_log.list_lines(connection, f, limit=LIMIT)  # type: ignore[misc]
    yield lambda connection, clock: chat.list_messages(connection, ChatFilter(agent_id=agent_id), limit=LIMIT)
    for both in (
        FeedFilter(),
        FeedFilter(agent_id=agent_id),
        FeedFilter(task_slug="rare"),
        FeedFilter(frozenset({FeedSource.SYSTEM_LOG}), agent_id=agent_id),
    ):
        yield lambda connection, clock, f=both: feed.newest(connection, f, limit=LIMIT)  # type: ignore[misc]
        yield lambda connection, clock, f=both: feed.newest(connection, f, limit=LIMIT, before=4000)  # type: ignore[misc]
        yield lambda connection, clock, f=both: operations.look(connection, f, after=8990, limit=LIMIT)  # type: ignore[misc]


async def test_a_page_is_read_from_an_index_and_no_further(full: tuple[Sessions, str]) -> None:
    sessions, agent_id = full
    for read in pages(agent_id):
        for found in await plans(sessions, read):
            scanned = r"Seq Scan on (agent|system)_logs|SCAN (agent|system)_logs(?! USING (COVERING )?INDEX)"
            assert not re.search(scanned, found), found
            assert "USE TEMP B-TREE FOR ORDER BY" not in found or "COMPOUND" in found or "CO-ROUTINE" in found, found
            handled = re.findall(r"(?:rows=|Rows Removed by \w+(?: \w+)*: )(\d+(?:\.\d+)?)", found)
            assert max((float(rows) for rows in handled), default=0) <= 4 * LIMIT, found

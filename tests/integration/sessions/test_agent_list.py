"""Lists of agents."""

from typing import Any

import pytest
from baton.sessions.v1.agent_service_pb2 import ArchiveAgentRequest, ListAgentsRequest

from services.chassis.errors import InvalidArgument
from tests.integration.sessions.running import Sessions


async def names(sessions: Sessions, **fields: Any) -> list[str]:
    answer = await sessions.caller(["agents:read"]).ListAgents(ListAgentsRequest(**fields))
    return [agent.name for agent in answer.items]


async def test_agents_are_listed_newest_first(sessions: Sessions) -> None:
    for name in ("one", "two", "three"):
        await sessions.agent(name=name)
    assert await names(sessions) == ["three", "two", "one"]


async def test_a_name_is_found_by_a_part_of_it_in_any_case(sessions: Sessions) -> None:
    for name in ("Scribe ONE", "scribe two", "writer", "100%_sure", "Ștefan"):
        await sessions.agent(name=name)
    assert await names(sessions, name_filter="SCRIBE") == ["scribe two", "Scribe ONE"]
    assert await names(sessions, name_filter="be o") == ["Scribe ONE"]
    # What means something to a database does not.
    assert await names(sessions, name_filter="%_s") == ["100%_sure"]
    assert await names(sessions, name_filter="%") == ["100%_sure"]
    assert await names(sessions, name_filter=".") == []
    assert await names(sessions, name_filter="ștefan") == ["Ștefan"]


async def test_agents_are_found_by_a_scope_they_were_given(sessions: Sessions) -> None:
    await sessions.agent("tasks:read", "runs:read", name="one")
    await sessions.agent("tasks:write", name="two")
    await sessions.agent("admin", name="three")
    assert await names(sessions, scope_filter="tasks:read") == ["one"]
    assert await names(sessions, scope_filter="tasks:") == []
    assert await names(sessions, scope_filter='tasks:read"') == []
    assert await names(sessions, scope_filter="tasks:write", name_filter="t") == ["two"]


async def test_archived_agents_are_shown_only_when_asked_for(sessions: Sessions) -> None:
    gone = await sessions.agent(name="gone")
    await sessions.agent(name="here")
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=gone.id))
    assert await names(sessions) == ["here"]
    assert await names(sessions, include_archived=True) == ["here", "gone"]


async def test_pages_follow_one_another_to_the_end(sessions: Sessions) -> None:
    for number in range(7):
        await sessions.agent(name=f"agent {number}")
    caller, cursor, seen = sessions.caller(["agents:read"]), "", []
    while True:
        page = await caller.ListAgents(ListAgentsRequest(limit=3, cursor=cursor))
        seen += [agent.name for agent in page.items]
        assert page.has_more == page.HasField("next_cursor")
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert seen == [f"agent {number}" for number in reversed(range(7))]


async def test_agents_are_passed_over_by_number_for_earlier_clients(sessions: Sessions) -> None:
    for number in range(5):
        await sessions.agent(name=f"agent {number}")
    assert await names(sessions, offset=1, limit=2) == ["agent 3", "agent 2"]
    page = await sessions.caller(["agents:read"]).ListAgents(ListAgentsRequest(offset=1, limit=2))
    assert await names(sessions, cursor=page.next_cursor, limit=2) == ["agent 1", "agent 0"]
    with pytest.raises(InvalidArgument) as refused:
        await names(sessions, offset=1, cursor=page.next_cursor)
    assert [violation.field for violation in refused.value.violations] == ["offset"]


async def test_a_cursor_fits_its_own_filters_alone(sessions: Sessions) -> None:
    for number in range(3):
        await sessions.agent(name=f"agent {number}")
    page = await sessions.caller(["agents:read"]).ListAgents(ListAgentsRequest(limit=1))
    for other in ({"include_archived": True}, {"name_filter": "a"}, {"scope_filter": "tasks:read"}):
        with pytest.raises(InvalidArgument) as refused:
            await names(sessions, cursor=page.next_cursor, **other)
        assert refused.value.reason == "CURSOR_INVALID"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 10_001}, "offset"),
        ({"name_filter": "x" * 101}, "name_filter"),
        ({"scope_filter": "x" * 101}, "scope_filter"),
        ({"cursor": "garbage"}, "cursor"),
    ],
)
async def test_a_list_outside_the_contract_is_refused(sessions: Sessions, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await names(sessions, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]

"""Lists of sessions: by page numbers, as earlier clients have them, and by cursor."""

from collections.abc import Sequence
from typing import Any

import pytest
from baton.sessions.v1.session_service_pb2 import (
    ListActiveSessionsRequest,
    ListSessionsRequest,
    ListSessionsResponse,
)
from sqlalchemy import insert

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import from_timestamp
from services.sessions.models.session import SessionStatus
from services.sessions.store import tables
from tests.integration.sessions.lifecycles import Owner, owner_of, wire
from tests.integration.sessions.running import Sessions


@pytest.fixture
async def owner(sessions: Sessions) -> Owner:
    return await owner_of(sessions)


async def listed(owner: Owner, **fields: Any) -> ListSessionsResponse:
    return await owner.caller.ListSessions(ListSessionsRequest(**fields))


def ids(page: Any) -> list[str]:
    return [row.id for row in page.sessions]


async def many(sessions: Sessions, owner: Owner, count: int) -> list[str]:
    """The ids of so many new sessions, newest first."""
    now = sessions.clock.now()
    common = {"agent_role": "planner", "agent_id": owner.agent_id, "status": "pending", "metadata": {}, "version": 1}
    times = dict.fromkeys(("created_at", "updated_at", "last_activity_at"), now)
    rows = [{"id": new_id()} | common | times for _ in range(count)]

    def store(connection: Any, clock: Any) -> None:
        for start in range(0, count, 1000):
            connection.execute(insert(tables.sessions), rows[start : start + 1000])

    await sessions.database.transact(store)
    return sorted((str(row["id"]) for row in rows), reverse=True)


async def test_without_saying_more_a_page_has_twenty_and_says_how_many_there_are(
    sessions: Sessions, owner: Owner
) -> None:
    wanted = await many(sessions, owner, 45)
    first = await listed(owner)
    assert (first.total, first.page, first.page_size, first.has_more) == (45, 1, 20, True)
    pages = [await listed(owner, page=number) for number in (1, 2, 3, 4)]
    assert pages[0] == first
    assert [ids(page) for page in pages] == [wanted[:20], wanted[20:40], wanted[40:], []]
    assert [(page.page, page.total, page.has_more) for page in pages[1:]] == [
        (2, 45, True),
        (3, 45, False),
        (4, 45, False),
    ]


@pytest.mark.parametrize(
    ("given", "taken"), [(1, 1), (7, 7), (100, 100), (101, 100), (2**63 - 1, 100), (0, 1), (-5, 1)]
)
async def test_a_page_size_is_taken_for_what_is_possible(
    sessions: Sessions, owner: Owner, given: int, taken: int
) -> None:
    wanted = await many(sessions, owner, 120)
    page = await listed(owner, page_size=given)
    assert (page.page_size, ids(page)) == (taken, wanted[:taken])


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({"page": 0}, 501),
        ({"page": -1}, 501),
        ({"page": 502}, 501),
        ({"page": 2**31 - 1}, 501),
        ({"page": 2**63 - 1}, 501),
        ({"page": 102, "page_size": 100}, 101),
        ({"page": 10_002, "page_size": 1}, 10_001),
    ],
)
async def test_a_page_out_of_range_is_refused_with_the_range(owner: Owner, fields: dict[str, int], last: int) -> None:
    with pytest.raises(InvalidArgument, match=f"from 1 to {last} .* next_cursor") as refused:
        await listed(owner, **fields)
    assert [violation.field for violation in refused.value.violations] == ["page"]
    assert ids(await listed(owner, page=last, page_size=fields.get("page_size", 20))) == []


async def test_cursors_lead_through_all(sessions: Sessions, owner: Owner) -> None:
    wanted = await many(sessions, owner, 45)
    for fields in ({"limit": 10}, {"page_size": 10}, {}):
        seen: list[str] = []
        page = await listed(owner, **fields)
        seen += ids(page)
        while page.has_more:
            page = await listed(owner, cursor=page.next_cursor, **fields)
            assert not page.HasField("total")
            assert not page.HasField("page")
            seen += ids(page)
        assert not page.HasField("next_cursor")
        assert seen == wanted


async def test_who_came_by_page_numbers_goes_on_by_cursor(sessions: Sessions, owner: Owner) -> None:
    wanted = await many(sessions, owner, 45)
    second = await listed(owner, page=2)
    assert ids(await listed(owner, cursor=second.next_cursor)) == wanted[40:]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": 5, "page": 1}, "limit"),
        ({"limit": 5, "page_size": 5}, "limit"),
        ({"agent_role": "x" * 51}, "agent_role"),
        ({"agent_id": "me"}, "agent_id"),
        ({"task_id": "it"}, "task_id"),
        ({"status": [0]}, "status[0]"),
        ({"status": [99]}, "status[0]"),
    ],
)
async def test_a_bad_question_is_refused_by_name(owner: Owner, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await listed(owner, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_cursor_fits_only_its_list(sessions: Sessions, owner: Owner) -> None:
    await many(sessions, owner, 5)
    cursor = (await listed(owner, limit=2)).next_cursor
    for fields in ({"agent_role": "planner"}, {"page": 1}):
        with pytest.raises(InvalidArgument):
            await listed(owner, cursor=cursor, **fields)


async def test_no_more_than_ten_thousand_and_one_are_counted(sessions: Sessions, owner: Owner) -> None:
    wanted = await many(sessions, owner, 10_105)
    page = await listed(owner, page=101, page_size=100)
    assert page.total == 10_001
    assert ids(page) == wanted[10_000:10_100]
    assert ids(await listed(owner, page_size=100, cursor=page.next_cursor)) == wanted[10_100:]


async def test_filters(sessions: Sessions, owner: Owner) -> None:
    other = await owner_of(sessions)
    task_id = new_id()
    pending = await owner.begin()
    active = await owner.begin(SessionStatus.ACTIVE, agent_role="coder", task_id=task_id)
    ended = await other.begin(SessionStatus.COMPLETED, agent_role="coder")

    async def found(**fields: Any) -> Sequence[str]:
        page = await listed(owner, **fields)
        assert page.total == len(page.sessions)
        return ids(page)

    assert await found() == [ended, active, pending]
    assert await found(status=[wire(SessionStatus.ACTIVE)]) == [active]
    assert await found(status=[wire(SessionStatus.PENDING), wire(SessionStatus.COMPLETED)]) == [ended, pending]
    assert await found(agent_role="coder") == [ended, active]
    assert await found(agent_id=other.agent_id.upper()) == [ended]
    assert await found(task_id=task_id.upper()) == [active]
    assert await found(task_id=task_id, agent_role="planner") == []


async def test_a_row_has_the_names_of_its_columns(sessions: Sessions, owner: Owner) -> None:
    task_id = new_id()
    session_id = await owner.begin(SessionStatus.PAUSED, task_id=task_id, metadata=to_struct({"a": 1}))
    (row,) = (await listed(owner)).sessions
    assert (row.id, row.role, row.task_id, row.status) == (session_id, "planner", task_id, wire(SessionStatus.PAUSED))
    assert (from_struct(row.metadata), row.agent_id, row.version) == ({"a": 1}, owner.agent_id, 3)
    times = (row.created_at, row.updated_at, row.last_activity_at, row.last_transition_at, row.paused_at)
    assert {from_timestamp(time) for time in times} == {sessions.clock.now()}


async def test_a_numbered_page_is_whole_however_large(owner: Owner) -> None:
    # As protobuf has it, this is many times as large as JSON: sixty of them are more than a page by cursor may hold.
    metadata = to_struct({"numbers": [1] * 8000})
    wanted = [await owner.begin(metadata=metadata) for _ in range(60)][::-1]
    assert len(ids(await listed(owner, limit=60))) < 60
    pages = [ids(await listed(owner, page=number, page_size=30)) for number in (1, 2)]
    assert [*pages[0], *pages[1]] == wanted


async def active_pages(owner: Owner, **fields: Any) -> list[list[str]]:
    pages, cursor = [], ""
    while True:
        page = await owner.caller.ListActiveSessions(ListActiveSessionsRequest(cursor=cursor, **fields))
        pages.append([row.id for row in page.items])
        if not page.has_more:
            return pages
        cursor = page.next_cursor


async def test_the_view_of_active_sessions_has_those_first_that_changed_last(sessions: Sessions, owner: Owner) -> None:
    first, second, third = [await owner.begin(SessionStatus.ACTIVE) for _ in range(3)]
    for status in set(SessionStatus) - {SessionStatus.ACTIVE}:
        await owner.begin(status)
    # Of those that changed at the same time the newest is first.
    assert await active_pages(owner) == [[third, second, first]]
    for session_id in (second, first):
        sessions.clock.advance(seconds=1)
        await owner.update(session_id, task_id=new_id())
    sessions.clock.advance(seconds=1)
    await owner.heartbeat(third)
    assert await active_pages(owner, limit=2) == [[first, second], [third]]
    assert await active_pages(owner, limit=1) == [[first], [second], [third]]


async def test_active_sessions_of_a_role(owner: Owner) -> None:
    coder = await owner.begin(SessionStatus.ACTIVE, agent_role="coder")
    await owner.begin(SessionStatus.ACTIVE)
    assert await active_pages(owner, agent_role="coder") == [[coder]]
    assert await active_pages(owner, agent_role="nobody") == [[]]

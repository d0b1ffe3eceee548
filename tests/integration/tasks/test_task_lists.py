"""Finding tasks: by owner, by text, by page number."""

from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.task_service_pb2 import ListTasksRequest, ListTasksResponse
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from sqlalchemy import insert

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import cancel, every_ten_minutes
from tests.integration.tasks.running import Tasks, one_engine, task_request


async def listed(tasks: Tasks, **fields: Any) -> ListTasksResponse:
    return await tasks.tasks.ListTasks(ListTasksRequest(**fields))


async def titles(tasks: Tasks, **fields: Any) -> set[str]:
    return {task.title for task in (await listed(tasks, **fields)).items}


async def add_tasks(tasks: Tasks, count: int) -> list[str]:
    """Stores many tasks like a first one; answers their ids, newest first."""
    first = await tasks.create()

    def add(connection: Any, clock: Any) -> list[str]:
        row = connection.execute(tables.tasks.select()).one()._asdict()
        rows = [row | {"id": new_id()} for _ in range(count - 1)]
        connection.execute(insert(tables.tasks), rows)
        return [first.id, *(row["id"] for row in rows)][::-1]

    return await tasks.database.transact(add)


async def test_tasks_are_found_by_their_owner(tasks: Tasks) -> None:
    owners = [new_id() for _ in range(3)]
    for owner in owners:
        stub = TaskServiceStub(tasks.channel(["tasks:write"], agent_id=owner))
        await stub.CreateTask(task_request(title=owner))
    assert await titles(tasks, created_by=[owners[0].upper()]) == {owners[0]}
    assert await titles(tasks, created_by=owners[1:]) == set(owners[1:])
    assert await titles(tasks, created_by=[new_id()]) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("briefing", {"Morning Briefing", "other"}),
        ("MORNING B", {"Morning Briefing"}),
        ("chișinău", {"CHIȘINĂU"}),
        ("ȘINĂ", {"CHIȘINĂU"}),
        ("100%", {"100% [done]_*."}),
        ("%", {"100% [done]_*."}),
        ("_", {"100% [done]_*."}),
        ("[DONE]", {"100% [done]_*."}),
        ("*.", {"100% [done]_*."}),
        (".*", set()),
        ("\\", {"back\\slash ^$(|)+?{}#~&-"}),
        ("^$(|)+?{}#~&-", {"back\\slash ^$(|)+?{}#~&-"}),
        ("straße", {"straße"}),
        ("İZMIR", {"İzmir"}),
        ("izmir", set()),
        ("line\nbreak", {"line"}),
        ("nowhere", set()),
    ],
)
async def test_tasks_are_found_by_their_text(tasks: Tasks, text: str, found: set[str]) -> None:
    for title, description in (
        ("Morning Briefing", ""), ("other", "a briefing, too"), ("CHIȘINĂU", ""), ("100% [done]_*.", ""),
        ("back\\slash ^$(|)+?{}#~&-", ""), ("straße", ""), ("İzmir", ""), ("line", "a line\nbreak"),
    ):  # fmt: skip
        await tasks.create(title=title, description=description)
    assert await titles(tasks, text=text) == found


async def test_filters_are_and_across_fields(tasks: Tasks) -> None:
    mine = await tasks.create(title="a briefing")
    await tasks.create(title="something else")
    canceled = await every_ten_minutes(tasks, title="a briefing by cron")
    await cancel(tasks, canceled.id)
    other = TaskServiceStub(tasks.channel(["tasks:write"]))
    await other.CreateTask(task_request(title="a briefing of theirs"))
    answer = await listed(tasks, text="briefing", created_by=[mine.created_by], status=[task_pb2.TASK_STATUS_ACTIVE])
    assert [task.id for task in answer.items] == [mine.id]
    assert answer.total == 1


async def test_pages_by_number(tasks: Tasks) -> None:
    ids = await add_tasks(tasks, 25)
    found = []
    for offset in (0, 10, 20):
        answer = await listed(tasks, limit=10, offset=offset)
        assert (answer.total, answer.limit, answer.offset) == (25, 10, offset)
        assert answer.has_more == answer.HasField("next_cursor") == (offset < 20)
        found += [task.id for task in answer.items]
    assert found == ids
    beyond = await listed(tasks, offset=10_000)
    assert (list(beyond.items), beyond.total, beyond.limit, beyond.has_more) == ([], 25, 50, False)


async def test_who_came_by_number_goes_on_by_cursor(tasks: Tasks) -> None:
    ids = await add_tasks(tasks, 25)
    numbered = await listed(tasks, limit=5, offset=10)
    behind = await listed(tasks, limit=20, cursor=numbered.next_cursor)
    assert [task.id for task in behind.items] == ids[15:]
    assert not behind.HasField("total")
    with pytest.raises(InvalidArgument) as refused:
        await listed(tasks, limit=5, offset=10, cursor=numbered.next_cursor)
    assert [violation.field for violation in refused.value.violations] == ["offset"]
    with pytest.raises(InvalidArgument) as refused:
        await listed(tasks, limit=5, text="other", cursor=numbered.next_cursor)
    assert refused.value.reason == "CURSOR_INVALID"


@one_engine
async def test_tasks_are_counted_up_to_ten_thousand_and_one(tasks: Tasks) -> None:
    await add_tasks(tasks, 10_010)
    assert (await listed(tasks, limit=1)).total == 10_001
    assert (await listed(tasks, limit=1, text="no such")).total == 0


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [({"offset": -1}, "offset"), ({"offset": 10_001}, "offset"), ({"text": "x" * 201}, "text"),
     ({"created_by": ["7"]}, "created_by[0]"), ({"schedule_kind": [0]}, "schedule_kind[0]"),
     ({"created_by": [new_id() for _ in range(101)]}, "created_by")],
)  # fmt: skip
async def test_a_bad_filter_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await listed(tasks, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]

"""What became of a task's times, and which come next, as callers read it."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from sqlalchemy import insert

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import (
    MISSED,
    RAN,
    TEN_MINUTES,
    at,
    cancel,
    completed,
    every_ten_minutes,
    occurrences,
    pause,
    runs_of,
    snooze,
    to_ten_minutes,
)
from tests.integration.tasks.running import Tasks, one_engine


async def judged(tasks: Tasks, task_id: str, count: int, **fields: Any) -> list[datetime]:
    """Stores `count` judged times, a minute apart; answers them, newest first."""
    times = [tasks.clock.now() - timedelta(minutes=n, microseconds=n) for n in range(count)]
    row = {"task_id": task_id, "through": None, "outcome": "missed", "reason": "late", "run_id": None,
           "decided_at": tasks.clock.now(), **fields}  # fmt: skip
    rows = [{**row, "scheduled_for": time} for time in times]
    await tasks.database.transact(lambda connection, clock: connection.execute(insert(tables.occurrences), rows))
    return times


def shown(answer: pb.ListOccurrencesResponse) -> list[datetime]:
    return [at(item.scheduled_for) for item in answer.items]


async def test_a_time_that_ran_names_its_run(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    tasks.clock.advance(minutes=10)
    await tasks.service.scheduler.step()
    (item,) = (await occurrences(tasks, task.id)).items
    (run,) = await runs_of(tasks, task.id)
    assert (at(item.scheduled_for), item.outcome, item.run_id) == (nominal, RAN, run.id)
    assert (item.reason, at(item.decided_at), item.HasField("through")) == ("", tasks.clock.now(), False)


async def test_every_time_is_on_one_page_newest_first(tasks: Tasks) -> None:
    task = await tasks.create()
    other = await tasks.create()
    await judged(tasks, other.id, 5)
    times = await judged(tasks, task.id, 120)
    found, cursor = [], ""
    for size in (50, 50, 20):
        answer = await occurrences(tasks, task.id, cursor=cursor)
        assert len(answer.items) == size
        found += shown(answer)
        cursor = answer.next_cursor
        assert answer.has_more == bool(cursor)
    assert found == times
    assert not cursor


async def test_outcomes_are_filtered(tasks: Tasks) -> None:
    task = await tasks.create()
    missed = await judged(tasks, task.id, 3)
    tasks.clock.advance(hours=1)
    ran = await judged(tasks, task.id, 2, outcome="ran", run_id=new_id())
    tasks.clock.advance(hours=1)
    await judged(tasks, task.id, 2, outcome="paused")
    assert shown(await occurrences(tasks, task.id, outcome=[MISSED])) == missed
    assert shown(await occurrences(tasks, task.id, outcome=[MISSED, RAN])) == ran + missed
    answer = await occurrences(tasks, task.id, outcome=[MISSED, RAN], limit=2)
    rest = await occurrences(tasks, task.id, outcome=[MISSED, RAN], limit=2, cursor=answer.next_cursor)
    assert shown(answer) + shown(rest) == (ran + missed)[:4]
    # Cursors belong to their filters.
    with pytest.raises(InvalidArgument) as refused:
        await occurrences(tasks, task.id, outcome=[MISSED], cursor=answer.next_cursor)
    assert refused.value.reason == "CURSOR_INVALID"


async def test_the_next_times_come_with_the_first_page(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks, timezone="Asia/Kolkata")
    answer = await occurrences(tasks, task.id)
    assert [at(time.at) for time in answer.next] == [nominal + n * TEN_MINUTES for n in range(5)]
    assert (answer.next[0].offset, answer.next[0].note) == ("+05:30", "")
    local = nominal + timedelta(hours=5, minutes=30)
    assert answer.next[0].local == local.strftime("%Y-%m-%dT%H:%M:%S")
    assert len((await occurrences(tasks, task.id, next=100)).next) == 100
    assert len((await occurrences(tasks, task.id, next=0)).next) == 0
    await judged(tasks, task.id, 2)
    first = await occurrences(tasks, task.id, limit=1)
    assert len(first.next) == 5
    assert len((await occurrences(tasks, task.id, limit=1, cursor=first.next_cursor)).next) == 0


async def test_a_snoozed_time_is_shown_when_it_fires(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    await snooze(tasks, task.id, 90)
    later = nominal + timedelta(seconds=90)
    answer = await occurrences(tasks, task.id, next=3)
    assert [at(time.at) for time in answer.next] == [later, nominal + TEN_MINUTES, nominal + 2 * TEN_MINUTES]
    assert answer.next[0].local == later.strftime("%Y-%m-%dT%H:%M:%S")
    assert [at(time.at) for time in (await occurrences(tasks, task.id, next=1)).next] == [later]
    # The times that it is moved behind fire with it.
    await snooze(tasks, task.id, 960)
    later += timedelta(minutes=16)
    answer = await occurrences(tasks, task.id, next=2)
    assert [at(time.at) for time in answer.next] == [later, nominal + 2 * TEN_MINUTES]


async def test_nothing_comes_of_what_does_not_fire(tasks: Tasks) -> None:
    paused, canceled = await every_ten_minutes(tasks), await every_ten_minutes(tasks)
    await pause(tasks, paused.id)
    await cancel(tasks, canceled.id)
    for task in (paused, canceled, await completed(tasks), await tasks.create()):
        assert list((await occurrences(tasks, task.id)).next) == []


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [({"limit": 0}, "limit"), ({"limit": 201}, "limit"), ({"next": -1}, "next"), ({"next": 101}, "next"),
     ({"outcome": [0]}, "outcome[0]"), ({"outcome": [RAN, 99]}, "outcome[1]")],
)  # fmt: skip
async def test_a_bad_filter_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await occurrences(tasks, new_id(), **fields)
    assert [violation.field for violation in refused.value.violations] == [field]


@one_engine
async def test_a_cursor_of_another_task_is_refused(tasks: Tasks) -> None:
    task, other = await tasks.create(), await tasks.create()
    await judged(tasks, task.id, 2)
    cursor = (await occurrences(tasks, task.id, limit=1)).next_cursor
    with pytest.raises(InvalidArgument) as refused:
        await occurrences(tasks, other.id, limit=1, cursor=cursor)
    assert refused.value.reason == "CURSOR_INVALID"


async def test_a_task_in_a_zone_that_was_abolished_can_be_read(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    await tasks.database.transact(
        lambda connection, clock: connection.execute(tables.tasks.update().values(timezone="Europe/Atlantis"))
    )
    assert task.status == task_pb2.TASK_STATUS_ACTIVE
    assert list((await occurrences(tasks, task.id)).next) == []

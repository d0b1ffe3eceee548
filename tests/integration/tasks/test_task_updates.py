"""Changing tasks."""

from datetime import timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1 import task_service_pb2 as pb

from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import (
    ACTIVE,
    CANCELED,
    COMPLETED,
    CRON,
    MANUAL,
    ONCE,
    OUTCOME_CANCELED,
    OUTCOME_PAUSED,
    PAUSED,
    RAN,
    TEN_MINUTES,
    at,
    cancel,
    completed,
    every_ten_minutes,
    occurrences,
    once,
    outcomes,
    pause,
    read,
    to_ten_minutes,
    update,
)
from tests.integration.tasks.running import Tasks, one_engine

CHANGES: dict[str, Any] = {
    "title": "another",
    "description": "why",
    "payload": {"pipeline": [{"uses": "echo.test"}], "params": {"a": True}},
    "priority": 1,
    "max_retries": 0,
    "backoff_strategy": task_pb2.BACKOFF_STRATEGY_FIXED,
    "concurrency_key": "the printer",
    "misfire": task_pb2.MISFIRE_SKIP,
    "overlap": task_pb2.OVERLAP_QUEUE,
    "role": "builder",
}


def given_back(task: task_pb2.Task, **changes: Any) -> dict[str, Any]:
    """Everything of a task that can be changed, as a client sends it that has read the whole."""
    fields = [*CHANGES, "schedule_kind", "schedule_expr", "timezone", "status"]
    given = {name: getattr(task, name) for name in fields if name != "payload"}
    return given | changes


async def faults(tasks: Tasks, task_id: str, **fields: Any) -> dict[str, str]:
    """The faults of a change that is refused, by field; nothing has changed."""
    before = await read(tasks, task_id)
    with pytest.raises(InvalidArgument) as refused:
        await update(tasks, task_id, **fields)
    assert await read(tasks, task_id) == before
    return {violation.field: violation.description for violation in refused.value.violations}


@pytest.mark.parametrize("field", CHANGES)
async def test_one_field_is_changed_and_no_other(tasks: Tasks, field: str) -> None:
    created = await every_ten_minutes(tasks, concurrency_key="a", role="b", description="c")
    tasks.clock.advance(seconds=1)
    changed = await update(tasks, created.id, **{field: CHANGES[field]})
    expected = task_pb2.Task()
    expected.CopyFrom(created)
    expected.updated_at.FromDatetime(tasks.clock.now())
    if field == "payload":
        expected.payload.CopyFrom(to_struct(CHANGES[field]))
    else:
        setattr(expected, field, CHANGES[field])
    expected.target = expected.role
    assert changed == expected == await read(tasks, created.id)


@pytest.mark.parametrize("field", ["description", "concurrency_key", "role"])
async def test_a_text_can_be_emptied(tasks: Tasks, field: str) -> None:
    task = await tasks.create(**{field: "something"})
    assert getattr(await update(tasks, task.id, **{field: ""}), field) == ""


async def test_all_fields_are_changed_at_once(tasks: Tasks) -> None:
    task = await tasks.create()
    changed = await update(tasks, task.id, schedule_kind=CRON, schedule_expr="@daily", timezone="Asia/Tokyo", **CHANGES)
    assert (changed.schedule_kind, changed.schedule_expr, changed.timezone) == (CRON, "@daily", "Asia/Tokyo")
    assert all(getattr(changed, name) == value for name, value in CHANGES.items() if name != "payload")
    assert changed.payload == to_struct(CHANGES["payload"])


async def test_what_is_sent_back_as_it_was_is_no_change(tasks: Tasks) -> None:
    for task in (await every_ten_minutes(tasks), await tasks.create(payload=CHANGES["payload"])):
        tasks.clock.advance(minutes=3)
        assert await update(tasks, task.id) == task
        assert await update(tasks, task.id, **given_back(task)) == task
        payload = CHANGES["payload"] if task.payload["pipeline"] else {"pipeline": []}
        assert await update(tasks, task.id, payload=payload) == task


async def test_true_is_not_1(tasks: Tasks) -> None:
    task = await tasks.create(payload={"pipeline": [], "params": {"a": True}})
    changed = await update(tasks, task.id, payload={"pipeline": [], "params": {"a": 1}})
    assert changed.payload == to_struct({"pipeline": [], "params": {"a": 1}})


async def test_what_is_queued_stays_as_it_was(tasks: Tasks) -> None:
    task = await tasks.create(priority=3, payload={"pipeline": [], "params": {"a": 1}})
    run_id = await tasks.run_now(task.id)
    before = await tasks.run(run_id)
    await update(tasks, task.id, priority=9, title="new", role="builder", payload={"pipeline": []})
    assert await tasks.run(run_id) == before
    assert [run.lease.run_id for run in await tasks.lease()] == [run_id]


async def test_a_new_schedule_begins_now(tasks: Tasks) -> None:
    to_ten_minutes(tasks)
    task = await every_ten_minutes(tasks)
    tasks.clock.advance(minutes=7)
    changed = await update(tasks, task.id, schedule_expr="*/2 * * * *")
    assert at(changed.next_fire_at) == at(changed.next_scheduled_for) == tasks.clock.now() + timedelta(minutes=1)
    tasks.clock.advance(minutes=1)
    await tasks.service.scheduler.step()
    assert await outcomes(tasks, task.id) == [(tasks.clock.now(), RAN)]


async def test_a_recurrence_counts_from_when_it_was_set(tasks: Tasks) -> None:
    task = await tasks.create(schedule_kind=task_pb2.SCHEDULE_KIND_RRULE, schedule_expr="FREQ=MINUTELY;INTERVAL=30")
    tasks.clock.advance(minutes=7)
    set_at = tasks.clock.now().replace(second=0)
    await update(tasks, task.id, schedule_expr="FREQ=MINUTELY;INTERVAL=20")
    tasks.clock.advance(minutes=1)
    answer = await occurrences(tasks, task.id, next=3)
    assert {(at(time.at) - set_at) % timedelta(minutes=20) for time in answer.next} == {timedelta()}


async def test_another_timezone_is_another_schedule(tasks: Tasks) -> None:
    task = await tasks.create(schedule_kind=CRON, schedule_expr="0 12 * * *")
    moved = await update(tasks, task.id, timezone="Asia/Tokyo")
    assert at(moved.next_fire_at).hour == 3
    assert at(task.next_fire_at).hour == 12


async def test_a_task_of_no_schedule_any_more(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    assert set(await faults(tasks, task.id, schedule_kind=MANUAL)) == {"schedule_expr"}
    changed = await update(tasks, task.id, schedule_kind=MANUAL, schedule_expr="")
    assert (changed.status, changed.HasField("next_fire_at")) == (ACTIVE, False)
    tasks.clock.advance(hours=1)
    await tasks.service.scheduler.step()
    assert await tasks.count(tables.runs) == 0


async def test_a_new_schedule_makes_a_completed_task_active(tasks: Tasks) -> None:
    task = await completed(tasks)
    assert (await update(tasks, task.id, title="new", status=ACTIVE)).status == COMPLETED
    instant = tasks.clock.now() + TEN_MINUTES
    changed = await update(tasks, task.id, schedule_expr=instant.isoformat())
    assert (changed.status, at(changed.next_fire_at)) == (ACTIVE, instant)
    tasks.clock.advance(minutes=10)
    await tasks.service.scheduler.step()
    assert (await outcomes(tasks, task.id))[-1] == (instant, RAN)
    assert (await read(tasks, task.id)).status == COMPLETED


async def test_a_time_that_has_its_outcome_gets_no_other(tasks: Tasks) -> None:
    instant = tasks.clock.now()
    task = await once(tasks, instant)
    await tasks.service.scheduler.step()
    assert await outcomes(tasks, task.id) == [(instant, RAN)]
    found = await faults(tasks, task.id, schedule_expr=instant.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert "has its outcome" in found["schedule_expr"]


async def test_a_time_that_had_come_before_its_schedule_was_changed_is_accounted_for(tasks: Tasks) -> None:
    first = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    # Nobody looks in these 25 minutes.
    tasks.clock.advance(minutes=25)
    await update(tasks, task.id, schedule_expr="@daily")
    (item,) = (await occurrences(tasks, task.id)).items
    assert (at(item.scheduled_for), at(item.through)) == (first, first + TEN_MINUTES)
    assert (item.outcome, item.reason) == (OUTCOME_CANCELED, "the schedule was changed before it fired")


async def test_a_paused_task_with_a_new_schedule_stays_paused(tasks: Tasks) -> None:
    first = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    await pause(tasks, task.id)
    tasks.clock.advance(minutes=12)
    changed = await update(tasks, task.id, schedule_expr="*/5 * * * *")
    assert (changed.status, changed.HasField("paused_at")) == (PAUSED, True)
    assert at(changed.next_fire_at) == tasks.clock.now() + timedelta(minutes=3)
    assert await outcomes(tasks, task.id) == [(first, OUTCOME_PAUSED)]
    # Both at once: the schedule first, so that the times of the old one do not run.
    changed = await update(tasks, task.id, schedule_expr="@daily", status=ACTIVE)
    assert (changed.status, changed.HasField("paused_at")) == (ACTIVE, False)
    assert await tasks.count(tables.runs) == 0


async def test_a_status_goes_the_way_of_its_own_call(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    run_id = await tasks.run_now(task.id)
    paused = await update(tasks, task.id, status=PAUSED, title="resting")
    assert (paused.status, paused.title, at(paused.paused_at)) == (PAUSED, "resting", tasks.clock.now())
    assert await tasks.lease() == []
    tasks.clock.advance(minutes=10)
    assert (await update(tasks, task.id, status=ACTIVE)).status == ACTIVE
    assert await outcomes(tasks, task.id) == [(nominal, RAN)]
    canceled = await update(tasks, task.id, status=CANCELED)
    assert (canceled.status, canceled.HasField("next_fire_at")) == (CANCELED, False)
    assert (await outcomes(tasks, task.id))[-1] == (nominal + TEN_MINUTES, OUTCOME_CANCELED)
    assert (await tasks.run(run_id)).status == run_pb2.RUN_STATUS_CANCELED


async def test_a_completed_task_cannot_be_paused(tasks: Tasks) -> None:
    task = await completed(tasks)
    with pytest.raises(FailedPrecondition) as refused:
        await update(tasks, task.id, status=PAUSED, title="new")
    assert refused.value.reason == "TASK_COMPLETED"
    assert await read(tasks, task.id) == task


async def test_a_canceled_task_stays_as_it_is(tasks: Tasks) -> None:
    task_id = (await every_ten_minutes(tasks)).id
    await cancel(tasks, task_id)
    task = await read(tasks, task_id)
    for changes in ({"title": "new"}, {"status": ACTIVE}, {"status": PAUSED}, {"schedule_expr": "@daily"},
                    {"title": "new", "status": CANCELED}):  # fmt: skip
        with pytest.raises(FailedPrecondition, match=task_id) as refused:
            await update(tasks, task_id, **changes)
        assert refused.value.reason == "TASK_CANCELED"
    assert await update(tasks, task_id, status=CANCELED) == task
    assert await update(tasks, task_id, **given_back(task)) == task
    assert await read(tasks, task_id) == task


async def test_every_fault_of_a_change_is_told_at_once(tasks: Tasks) -> None:
    task = await every_ten_minutes(tasks)
    found = await faults(
        tasks, task.id, title="new", schedule_expr="often", timezone="Mars/Olympus", status=PAUSED,
        payload={"pipeline": [{"uses": "nowhere.tool", "with": {"a": "${steps.b}"}}]},
    )  # fmt: skip
    assert set(found) == {
        "schedule_expr", "timezone", "payload.pipeline[0].uses", "payload.pipeline[0].with.a",
    }  # fmt: skip
    assert await faults(tasks, task.id, schedule_expr="0 0 30 2 *")
    assert set(await faults(tasks, task.id, schedule_kind=ONCE)) == {"schedule_expr"}
    too_large = {"pipeline": [], "params": {"a": "x" * (1024 * 1024)}}
    assert set(await faults(tasks, task.id, payload=too_large)) == {"payload"}
    assert set(await faults(tasks, task.id, concurrency_key="order-${event.id}")) == {"concurrency_key"}


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"description": "x" * 2001}, "description"),
        ({"schedule_kind": 0}, "schedule_kind"),
        ({"schedule_expr": "x" * 1001}, "schedule_expr"),
        ({"timezone": ""}, "timezone"),
        ({"priority": 0}, "priority"),
        ({"status": 0}, "status"),
        ({"status": COMPLETED}, "status"),
        ({"max_retries": 11}, "max_retries"),
        ({"backoff_strategy": 0}, "backoff_strategy"),
        ({"concurrency_key": "x" * 101}, "concurrency_key"),
        ({"misfire": 9}, "misfire"),
        ({"overlap": 9}, "overlap"),
        ({"role": "x" * 51}, "role"),
        ({"request_id": "x" * 256}, "request_id"),
        ({"task_id": "7"}, "task_id"),
    ],
)
async def test_a_bad_field_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.UpdateTask(pb.UpdateTaskRequest(**{"task_id": new_id(), **fields}))
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_task_that_is_not_there(tasks: Tasks) -> None:
    task_id = new_id()
    with pytest.raises(NotFound, match=task_id) as refused:
        await update(tasks, task_id, title="new")
    assert refused.value.reason == "TASK_NOT_FOUND"

"""Tasks that wait for events: created, looked at before, changed."""

from typing import Any

import pytest
from baton.tasks.v1 import task_service_pb2 as pb
from sqlalchemy import select

from services.chassis.errors import InvalidArgument
from services.chassis.structs import from_struct, to_struct
from services.tasks.store import tables
from tests.integration.tasks.events import EVENT, publish, waiting_for
from tests.integration.tasks.lifecycle import (
    ACTIVE,
    CRON,
    MANUAL,
    cancel,
    completed,
    occurrences,
    pause,
    read,
    resume,
    snooze,
    update,
)
from tests.integration.tasks.running import Tasks, one_engine

READS_EVENT = {"pipeline": [{"uses": "echo.test", "with": {"text": "${event.id}"}}]}
NO_EVENT = "there is no event: only tasks with schedule_kind event or condition have an event"


async def preview(tasks: Tasks, sample: dict[str, Any] | None, **fields: Any) -> pb.PreviewTaskResponse:
    payload, told = fields.pop("payload", {"pipeline": []}), None if sample is None else to_struct(sample)
    return await tasks.tasks.PreviewTask(pb.PreviewTaskRequest(payload=to_struct(payload), sample=told, **fields))


async def faults(call: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArgument) as refused:
        await call
    return [(violation.field, violation.description) for violation in refused.value.violations]


async def test_a_task_that_waits_for_events_has_no_times(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100")
    stored = await read(tasks, task.id)
    assert stored == task
    assert (stored.schedule_kind, stored.schedule_expr, stored.event_filter, stored.status) == (
        EVENT, "order.*", "event.total > 100", ACTIVE,
    )  # fmt: skip
    assert not stored.HasField("next_fire_at")
    times = await occurrences(tasks, task.id)
    assert (list(times.items), list(times.next)) == ([], [])
    listed = await tasks.tasks.ListTasks(pb.ListTasksRequest(schedule_kind=[EVENT]))
    assert [item.id for item in listed.items] == [task.id]


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("", "is required for schedule_kind event"),
        ("order..created", "is no topic, or pattern of topics"),
        (" order.created", "is no topic, or pattern of topics"),
        ("order.**.created", "has ** before its end"),
        ("x" * 101, "has 101 characters, at most 100"),
    ],
)
@one_engine
async def test_what_is_no_topic_is_refused(tasks: Tasks, topic: str, fault: str) -> None:
    ((field, description),) = await faults(waiting_for(tasks, topic))
    assert (field, fault in description) == ("schedule_expr", True), description
    assert await tasks.count(tables.tasks) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("event.total >", '"event.total >" is no CEL: mismatched input'),
        ("size(event)", "must be true or false"),
        ("evnt.total > 1", "undeclared reference to 'evnt.total'"),
        ("event.name.matches('a')", "undeclared reference to 'matches'"),
        ("event.name.contains(event.part)", "contains() looks for a text in quotes"),
        ("event.a.map(x, x).all(x, x)", "go through a field"),
    ],
)
@one_engine
async def test_what_is_no_filter_is_refused_by_its_name(tasks: Tasks, text: str, fault: str) -> None:
    ((field, description),) = await faults(waiting_for(tasks, "order.*", event_filter=text))
    assert (field, fault in description) == ("event_filter", True), description
    assert await tasks.count(tables.tasks) == 0


@one_engine
async def test_a_filter_is_no_longer_than_it_may_be(tasks: Tasks) -> None:
    ((field, _),) = await faults(waiting_for(tasks, "order.*", event_filter="event.a == '" + "x" * 1000 + "'"))
    assert field == "event_filter"


@one_engine
async def test_where_there_is_no_event_nothing_reads_one(tasks: Tasks) -> None:
    assert await faults(tasks.create(payload=READS_EVENT, event_filter="event.a")) == [
        ("event_filter", "does nothing for schedule_kind manual: leave it empty"),
        ("payload.pipeline[0].with.text", NO_EVENT),
    ]
    await waiting_for(tasks, "order.*", payload=READS_EVENT)


async def test_a_task_becomes_one_that_waits_for_events_and_back(tasks: Tasks) -> None:
    task = await tasks.create(schedule_kind=CRON, schedule_expr="0 9 * * *")
    changed = await update(
        tasks, task.id, schedule_kind=EVENT, schedule_expr="order.*", event_filter="event.id == 7", payload=READS_EVENT
    )
    assert (changed.schedule_kind, changed.event_filter, changed.HasField("next_fire_at")) == (
        EVENT, "event.id == 7", False,
    )  # fmt: skip
    assert list((await publish(tasks, payload={"id": 7})).triggered_tasks) == [task.id]
    assert await faults(update(tasks, task.id, schedule_kind=MANUAL, schedule_expr="")) == [
        ("event_filter", "does nothing for schedule_kind manual: leave it empty"),
        ("payload.pipeline[0].with.text", NO_EVENT),
    ]
    back = await update(
        tasks, task.id, schedule_kind=CRON, schedule_expr="0 9 * * *", event_filter="", payload={"pipeline": []}
    )
    assert (back.schedule_kind, back.event_filter, back.HasField("next_fire_at")) == (CRON, "", True)
    assert list((await publish(tasks)).triggered_tasks) == []
    query = select(tables.tasks.c.topic_key)
    assert await tasks.database.read(lambda connection, clock: connection.execute(query).scalar_one()) is None


async def test_a_completed_task_may_go_on_with_events(tasks: Tasks) -> None:
    task = await completed(tasks)
    changed = await update(tasks, task.id, schedule_kind=EVENT, schedule_expr="order.*")
    assert changed.status == ACTIVE
    assert list((await publish(tasks)).triggered_tasks) == [task.id]


async def test_its_filter_is_changed_and_checked(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.id == 7")
    assert await faults(update(tasks, task.id, event_filter="event.id ==")) != []
    assert (await read(tasks, task.id)).event_filter == "event.id == 7"
    assert (await update(tasks, task.id, event_filter="event.id == 8")).event_filter == "event.id == 8"
    assert (await publish(tasks, payload={"id": 8})).deliveries[0].run_id
    assert (await update(tasks, task.id, event_filter="")).event_filter == ""


async def test_it_is_paused_resumed_snoozed_and_canceled_like_any_other(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*")
    done = await publish(tasks)
    assert (await snooze(tasks, task.id, 60)).affected_work_items == 1, "the run that waits"
    await pause(tasks, task.id)
    tasks.clock.advance(seconds=61)
    assert await tasks.lease() == [], "what is queued is kept"
    await resume(tasks, task.id)
    (leased,) = await tasks.lease()
    assert leased.lease.run_id == done.deliveries[0].run_id
    assert (await cancel(tasks, task.id)).affected_work_items == 1
    assert list((await publish(tasks)).deliveries) == []


async def test_run_now_makes_a_run_without_an_event(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", payload=READS_EVENT)
    run_id = await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    assert (leased.lease.run_id, leased.HasField("event"), leased.event_topic) == (run_id, False, "")
    assert not (await tasks.run(run_id)).HasField("event_id")


async def test_a_preview_asks_the_filter_and_renders_the_event(tasks: Tasks) -> None:
    step = {
        "uses": "echo.test",
        "with": {"id": "${event.id}", "topic": "${run.topic}", "all": "${event}"},
        "if": "event.paid",
    }
    fields: dict[str, Any] = {
        "schedule_kind": EVENT, "schedule_expr": "order.*", "event_filter": "event.id > 5 && topic == 'order.any'",
        "title": "a", "payload": {"pipeline": [step]},
    }  # fmt: skip
    shown = await preview(tasks, {"event": {"id": 7, "paid": True}}, **fields)
    assert (shown.valid, shown.event_matches, shown.event_reason, list(shown.fire_times)) == (True, True, "", [])
    (rendered,) = shown.steps
    assert rendered.condition
    assert from_struct(getattr(rendered, "with")) == {
        "id": 7, "topic": "order.any", "all": {"id": 7, "paid": True},
    }  # fmt: skip
    filtered = await preview(tasks, {"event": {"id": 5}}, **fields)
    assert (filtered.event_matches, filtered.event_reason) == (False, "the filter is not true of it")
    broken = await preview(tasks, {"event": {}}, **fields)
    assert not broken.HasField("event_matches")
    assert broken.event_reason == 'the filter cannot be evaluated: key not found in map : "id"'
    named = await preview(tasks, {"event": {"id": 7}, "run": {"topic": "order.paid"}}, **fields)
    assert (named.event_matches, named.HasField("event_matches")) == (False, True)
    assert await tasks.count(tables.tasks) == 0


@one_engine
@pytest.mark.parametrize("event_filter", ["", "true"])
@pytest.mark.parametrize(
    ("pattern", "topic"), [("order.*", "order"), ("order.*", "invoice.paid"), ("**", "run.failed")]
)
async def test_an_event_with_a_topic_that_nobody_waits_for_would_make_no_run(
    tasks: Tasks, pattern: str, topic: str, event_filter: str
) -> None:
    sample = {"event": {}, "run": {"topic": topic}}
    shown = await preview(tasks, sample, schedule_kind=EVENT, schedule_expr=pattern, event_filter=event_filter)
    assert (shown.valid, shown.event_matches, shown.HasField("event_matches")) == (True, False, True)
    assert shown.event_reason == f"the task does not wait for {topic!r}: {pattern!r} does not match it"


@one_engine
@pytest.mark.parametrize("topic", [5, None])
async def test_a_topic_that_is_no_text_is_named(tasks: Tasks, topic: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await preview(tasks, {"run": {"topic": topic}}, schedule_kind=EVENT, schedule_expr="order.*")
    assert [violation.field for violation in refused.value.violations] == ["sample.run.topic"]


async def test_without_a_sample_nothing_is_guessed_of_the_event(tasks: Tasks) -> None:
    step = {"uses": "echo.test", "with": {"id": "${event.id}", "now": "${now}"}, "if": "event.paid"}
    fields: dict[str, Any] = {"schedule_kind": EVENT, "schedule_expr": "order.*", "title": "a"}
    shown = await preview(tasks, None, payload={"pipeline": [step]}, event_filter="event.id > 5", **fields)
    assert (shown.valid, shown.HasField("event_matches"), shown.event_reason) == (True, False, "")
    (rendered,) = shown.steps
    assert {fault.field: fault.description for fault in rendered.unresolved} == {
        "payload.pipeline[0].if": "event is not in the sample",
        "payload.pipeline[0].with.id": "event is not in the sample",
    }
    assert not rendered.HasField("condition")
    assert from_struct(getattr(rendered, "with"))["id"] == "${event.id}"


async def test_a_preview_names_the_faults_of_filter_and_topic(tasks: Tasks) -> None:
    shown = await preview(
        tasks, {"event": {}}, schedule_kind=EVENT, schedule_expr="a..b", event_filter="event.", title="a"
    )
    assert [fault.field for fault in shown.errors] == ["schedule_expr", "event_filter"]
    assert not shown.HasField("event_matches")


@one_engine
async def test_a_sample_event_is_for_tasks_that_have_one(tasks: Tasks) -> None:
    assert await faults(preview(tasks, {"event": {}}, schedule_kind=MANUAL, title="a")) == [
        ("sample.event", "only tasks with schedule_kind event or condition have an event")
    ]
    assert await faults(preview(tasks, {"event": 3}, schedule_kind=EVENT, schedule_expr="a", title="a")) == [
        ("sample.event", "must be an object")
    ]

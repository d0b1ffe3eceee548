"""Tasks that wait for conditions: created, looked at before, changed."""

from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1 import task_service_pb2 as pb

from services.chassis.errors import InvalidArgument
from services.chassis.structs import from_struct, to_struct
from services.tasks.store import tables
from tests.integration.tasks.conditions import CONDITION, condition, lease, tell, waiting_until
from tests.integration.tasks.lifecycle import CRON, MANUAL, occurrences, read, runs_of, update
from tests.integration.tasks.running import Tasks, one_engine


async def faults(call: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArgument) as refused:
        await call
    return [(violation.field, violation.description) for violation in refused.value.violations]


async def preview(tasks: Tasks, sample: dict[str, Any] | None = None, **fields: Any) -> pb.PreviewTaskResponse:
    given = {"schedule_kind": CONDITION, "schedule_expr": "result.up", "condition": condition(), **fields}
    payload, told = given.pop("payload", {"pipeline": []}), None if sample is None else to_struct(sample)
    return await tasks.tasks.PreviewTask(pb.PreviewTaskRequest(payload=to_struct(payload), sample=told, **given))


async def test_a_task_that_waits_for_a_condition_has_no_times(tasks: Tasks) -> None:
    asked = condition(30, 600, with_={"up": "${params.up}"}, timeout_seconds=2.5)
    payload = {"pipeline": [{"uses": "echo.test", "with": {"text": "${event.result.up}"}}], "params": {"up": True}}
    task = await waiting_until(tasks, "result.up == params.up", condition=asked, payload=payload)
    stored = await read(tasks, task.id)
    assert stored == task
    assert (stored.schedule_kind, stored.condition) == (CONDITION, asked)
    assert not stored.HasField("next_fire_at")
    times = await occurrences(tasks, task.id)
    assert (list(times.items), list(times.next)) == ([], [])
    listed = await tasks.tasks.ListTasks(pb.ListTasksRequest(schedule_kind=[CONDITION]))
    assert [item.id for item in listed.items] == [task.id]


async def test_a_minute_passes_between_probes_unless_the_task_says_otherwise(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=task_pb2.Condition(probe=task_pb2.Probe(uses="echo.test")))
    assert (task.condition.every_seconds, task.condition.cooldown_seconds) == (60, 0)
    (probe,) = await lease(tasks)
    assert (probe.timeout_seconds, probe.lasts.seconds) == (30, 90)


@pytest.mark.parametrize(
    ("fields", "field", "fault"),
    [
        ({"schedule_expr": ""}, "schedule_expr", "is required for schedule_kind condition"),
        ({"schedule_expr": "result.up &&"}, "schedule_expr", "is no CEL"),
        ({"schedule_expr": "event.up"}, "schedule_expr", "undeclared reference to 'event"),
        ({"schedule_expr": "size(params)"}, "schedule_expr", "must be true or false"),
        ({"condition": None}, "condition", "is required for schedule_kind condition"),
        ({"condition": condition(uses="")}, "condition.probe.uses", "must be a tool's address"),
        ({"condition": condition(uses="nowhere.tool")}, "condition.probe.uses", "there is no tool server 'nowhere'"),
        ({"condition": condition(with_={"a": "${steps.x}"})}, "condition.probe.with.a", "there is no 'steps'"),
        ({"condition": condition(with_={"a": "${event.x}"})}, "condition.probe.with.a", "there is no 'event'"),
        ({"condition": condition(with_={"a": "${item}"})}, "condition.probe.with.a", "item is there only"),
        ({"condition": condition(with_={"a": "${run.id}"})}, "condition.probe.with.a", "there is no 'run'"),
        ({"condition": condition(with_={"a": "${params.b}"})}, "condition.probe.with.a", "params.b is not in"),
        ({"condition": condition(with_={"a": "x" * 70_000})}, "condition.probe.with", "is 70008 bytes as JSON"),
        ({"condition": condition(every_seconds=4)}, "condition.every_seconds", "5"),
        ({"condition": condition(every_seconds=86_401)}, "condition.every_seconds", "86400"),
        ({"condition": condition(cooldown_seconds=604_801)}, "condition.cooldown_seconds", "604800"),
        ({"condition": condition(timeout_seconds=0)}, "condition.probe.timeout_seconds", "0"),
        ({"condition": condition(timeout_seconds=float("nan"))}, "condition.probe.timeout_seconds", "0"),
        ({"condition": task_pb2.Condition()}, "condition.probe", "required"),
        ({"schedule_kind": MANUAL, "schedule_expr": ""}, "condition", "does nothing for schedule_kind manual"),
        ({"schedule_kind": CRON, "schedule_expr": "@daily"}, "condition", "does nothing for schedule_kind cron"),
        ({"event_filter": "true"}, "event_filter", "does nothing for schedule_kind condition"),
        (
            {"payload": {"pipeline": [{"uses": "echo.test", "with": {"a": "${run.topic}"}}]}},
            "payload.pipeline[0].with.a",
            "there is no run.topic",
        ),
    ],
)
@one_engine
async def test_what_is_wrong_with_a_condition_is_named(
    tasks: Tasks, fields: dict[str, Any], field: str, fault: str
) -> None:
    given = {"schedule_kind": CONDITION, "schedule_expr": "result.up", "condition": condition(), **fields}
    ((named, description),) = await faults(tasks.create(**given))
    assert (named, fault in description) == (field, True), description
    assert await tasks.count(tables.tasks) == await tasks.count(tables.conditions) == 0


async def test_a_preview_says_whether_the_expression_is_true_and_renders_what_follows(tasks: Tasks) -> None:
    payload = {"pipeline": [{"uses": "echo.test", "with": {"n": "${event.result.n}"}}], "params": {"url": "x"}}
    asked = condition(with_={"url": "${params.url}", "by": "${task.title}"})
    fields = {"payload": payload, "condition": asked, "title": "t", "schedule_expr": "result.n > 3"}
    shown = await preview(tasks, {"result": {"n": 7}}, **fields)
    assert (shown.valid, shown.condition_holds, shown.condition_reason) == (True, True, "")
    assert from_struct(getattr(shown.steps[0], "with")) == {"n": 7}
    assert (shown.probe.uses, from_struct(getattr(shown.probe, "with"))) == ("echo.test", {"url": "x", "by": "t"})
    assert not shown.fire_times
    assert (await preview(tasks, {"result": {"n": 3}}, **fields)).condition_holds is False
    unknown = await preview(tasks, {"result": {}}, **fields)
    assert not unknown.HasField("condition_holds")
    assert unknown.condition_reason.startswith("the expression cannot be evaluated: key not found")
    assert await tasks.count(tables.tasks) == await tasks.count(tables.conditions) == 0


async def test_a_preview_without_a_sample_says_what_is_missing(tasks: Tasks) -> None:
    payload = {"pipeline": [{"uses": "echo.test", "with": {"n": "${event.result.n}"}}]}
    asked = condition(with_={"a": "${params.absent}"})
    shown = await preview(tasks, payload=payload, condition=asked)
    assert (shown.HasField("condition_holds"), shown.condition_reason) == (
        False, "sample.result is missing: give what the probe would answer",
    )  # fmt: skip
    ((step,),) = [one.unresolved for one in shown.steps]
    assert (step.field, step.description) == ("payload.pipeline[0].with.n", "event is not in the sample")
    assert [fault.field for fault in shown.errors] == ["condition.probe.with.a"]
    assert [fault.field for fault in shown.probe.unresolved] == ["condition.probe.with.a"]


@one_engine
async def test_a_sample_holds_what_there_is(tasks: Tasks) -> None:
    assert (await faults(preview(tasks, {"event": {}}))) == [
        ("sample.event", "is made of sample.result for schedule_kind condition: give that")
    ]
    manual = {"schedule_kind": MANUAL, "schedule_expr": "", "condition": None}
    ((field, _),) = await faults(preview(tasks, {"result": {}}, **manual))
    assert field == "sample.result"


async def test_a_change_of_what_is_asked_forgets_what_was_told(tasks: Tasks) -> None:
    task = await waiting_until(tasks, payload={"pipeline": [], "params": {"a": 1}})
    await tell(tasks, True)
    changes: list[dict[str, Any]] = [
        {"schedule_expr": "result.up == true"},
        {"condition": condition(with_={"another": 1})},
        {"payload": {"pipeline": [], "params": {"a": 2}}},
    ]
    for number, change in enumerate(changes, start=2):
        await update(tasks, task.id, **change)
        await tell(tasks, True)
        assert len(await runs_of(tasks, task.id)) == number, change
    await update(tasks, task.id, title="other", payload={"pipeline": [{"uses": "echo.test"}], "params": {"a": 2}})
    await update(tasks, task.id, condition=condition(30, 0, with_={"another": 1}))
    await tell(tasks, True)
    assert len(await runs_of(tasks, task.id)) == 4


async def test_a_shorter_period_counts_at_once(tasks: Tasks) -> None:
    task = await waiting_until(tasks, condition=condition(86_400))
    await tell(tasks, False, seconds=10)
    await update(tasks, task.id, condition=condition(20))
    assert await lease(tasks) == []
    tasks.clock.advance(seconds=20)
    assert len(await lease(tasks)) == 1


async def test_a_task_of_another_kind_has_no_condition_any_more(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    (probe,) = await lease(tasks)
    changed = await update(tasks, task.id, schedule_kind=MANUAL, schedule_expr="")
    assert not changed.HasField("condition")
    tasks.clock.advance(days=1)
    assert await lease(tasks) == []
    assert await faults(update(tasks, task.id, condition=condition())) == [
        ("condition", "does nothing for schedule_kind manual: leave it out")
    ]
    again = await update(tasks, task.id, schedule_kind=CONDITION, schedule_expr="result", condition=condition())
    assert again.condition == condition()
    assert [one.number for one in await lease(tasks)] == [1]
    assert probe.number == 1


async def test_a_client_may_send_back_what_it_has_read(tasks: Tasks) -> None:
    task = await waiting_until(tasks)
    same = {"schedule_kind": CONDITION, "schedule_expr": task.schedule_expr, "condition": task.condition}
    assert await update(tasks, task.id, **same) == task

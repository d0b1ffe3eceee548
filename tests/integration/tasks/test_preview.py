"""Looking at a task before it is created."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import from_struct, to_struct
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import CRON, MANUAL, ONCE, at, outcomes, update
from tests.integration.tasks.running import Tasks, one_engine

RRULE = task_pb2.SCHEDULE_KIND_RRULE


def preview_request(sample: dict[str, Any] | None = None, **fields: Any) -> pb.PreviewTaskRequest:
    payload = to_struct(fields.pop("payload", {"pipeline": []}))
    given = {"schedule_kind": MANUAL, **fields}
    return pb.PreviewTaskRequest(payload=payload, sample=None if sample is None else to_struct(sample), **given)


async def preview(tasks: Tasks, sample: dict[str, Any] | None = None, **fields: Any) -> pb.PreviewTaskResponse:
    return await tasks.tasks.PreviewTask(preview_request(sample, **fields))


async def steps(tasks: Tasks, *pipeline: Any, sample: dict[str, Any] | None = None, **params: Any) -> list[Any]:
    """The rendered steps of a pipeline."""
    payload = {"pipeline": list(pipeline), "params": params}
    return list((await preview(tasks, sample, title="a title", payload=payload)).steps)


def unresolved(step: Any) -> dict[str, str]:
    return {fault.field: fault.description for fault in step.unresolved}


async def test_a_preview_stores_nothing(tasks: Tasks) -> None:
    answer = await preview(tasks, title="a", schedule_kind=CRON, schedule_expr="@daily",
                           payload={"pipeline": [{"uses": "echo.test"}]})  # fmt: skip
    assert answer.valid
    # Until when somebody watches runs is a row that is there from the start.
    for table in set(tables.metadata.sorted_tables) - {tables.run_watch}:
        assert await tasks.count(table) == 0, table.name


async def test_the_faults_are_those_of_creating_the_task(tasks: Tasks) -> None:
    fields: dict[str, Any] = {
        "schedule_kind": CRON, "schedule_expr": "often", "timezone": "Mars/Olympus", "dedupe_window_seconds": 60,
    }  # fmt: skip
    payload = {
        "pipeline": [
            {"uses": "echo.test", "with": {"a": "${steps.b}"}},
            {"uses": "nowhere.tool", "if": "]["},
            "not a step",
        ],
        "extra": 1,
    }
    answer = await preview(tasks, payload=payload, **fields)
    with pytest.raises(InvalidArgument) as refused:
        await tasks.create(payload=payload, **fields)
    expected = [(violation.field, violation.description) for violation in refused.value.violations]
    assert [(fault.field, fault.description) for fault in answer.errors] == expected
    assert len(expected) == 8
    assert not answer.valid
    assert list(answer.fire_times) == []
    # The steps that can be read are shown all the same.
    assert [(step.id, step.uses) for step in answer.steps] == [("step_1", "echo.test"), ("step_2", "nowhere.tool")]


async def test_templates_are_rendered_with_the_sample(tasks: Tasks) -> None:
    first, second = await steps(
        tasks,
        {"id": "one", "uses": "echo.test", "with": {"n": "${params.n}", "list": ["$${kept}", {"t": "${params.t}!"}]}},
        {"uses": "echo.test", "with": {"hour": "${steps.clock.time[:2]}", "who": "${task.title}"}},
        sample={"steps": {"clock": {"time": "07:15"}}},
        n=3,
        t="hi",
    )
    assert (first.id, first.uses) == ("one", "echo.test")
    assert from_struct(getattr(first, "with")) == {"n": 3, "list": ["${kept}", {"t": "hi!"}]}
    assert from_struct(getattr(second, "with")) == {"hour": "07", "who": "a title"}
    assert unresolved(first) == unresolved(second) == {}


async def test_what_the_sample_does_not_tell_stays_as_it_is_written(tasks: Tasks) -> None:
    clock, (step) = await steps(
        tasks,
        {"uses": "echo.test", "save_as": "clock"},
        {"uses": "echo.test", "with": {"a": "${steps.clock.time}", "b": ["${params.n}", "at ${steps.clock.x}"]}},
        sample={"steps": {"clock": {"time": 5}}},
        n=1,
    )
    assert unresolved(clock) == {}
    assert from_struct(getattr(step, "with")) == {"a": 5, "b": [1, "at ${steps.clock.x}"]}
    assert unresolved(step) == {
        "payload.pipeline[1].with.b[1]": "steps.clock.x is missing: steps.clock has time",
    }


async def test_everything_that_is_no_step_is_made_up_or_given(tasks: Tasks) -> None:
    used = {"now": "${now}", "run": "${run.attempt}", "id": "${run.id}", "task": "${task.id}"}
    (step,) = await steps(tasks, {"uses": "echo.test", "with": used})
    made_up = from_struct(getattr(step, "with"))
    assert made_up["now"] == tasks.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert made_up["run"] == 1
    (step,) = await steps(
        tasks, {"uses": "echo.test", "with": used | {"n": "${params.n}"}}, n=1,
        sample={"now": "later", "run": {"attempt": 2}, "task": {"id": "t"}, "params": {"n": 2}},
    )  # fmt: skip
    given = from_struct(getattr(step, "with"))
    assert (given["now"], given["run"], given["task"], given["n"]) == ("later", 2, "t", 2)
    # What is left out of an object is made up still.
    assert len(given["id"]) == 36


@pytest.mark.parametrize(
    ("condition", "expected"),
    [("params.n == `3`", True), ("params.n > `3`", False), ("steps.clock.on", True), ("!steps.clock.off", True),
     ("steps.clock.nothing", False)],
)  # fmt: skip
async def test_conditions_are_told(tasks: Tasks, condition: str, expected: bool) -> None:
    sample = {"steps": {"clock": {"on": True}}}
    (_, step) = await steps(
        tasks, {"uses": "echo.test", "save_as": "clock"}, {"uses": "echo.test", "if": condition}, sample=sample, n=3
    )
    assert (step.HasField("condition"), step.condition) == (True, expected)


async def test_a_condition_on_what_nobody_knows_is_not_told(tasks: Tasks) -> None:
    _, without, step = await steps(
        tasks,
        {"uses": "echo.test", "save_as": "clock"},
        {"uses": "echo.test"},
        {"uses": "echo.test", "if": "!steps.clock.done"},
    )
    assert not without.HasField("condition")
    assert not step.HasField("condition")
    assert unresolved(step) == {"payload.pipeline[2].if": "steps.clock is not in the sample"}


async def test_the_next_times_are_told_with_what_the_clocks_do(tasks: Tasks) -> None:
    tasks.clock.advance(seconds=(datetime(2027, 3, 26, 12, tzinfo=UTC) - tasks.clock.now()).total_seconds())
    answer = await preview(tasks, schedule_kind=CRON, schedule_expr="30 2 * * *", timezone="Europe/Berlin")
    assert len(answer.fire_times) == 20
    before, change, after = answer.fire_times[:3]
    assert (at(before.at), before.local, before.offset, before.note) == (
        datetime(2027, 3, 27, 1, 30, tzinfo=UTC), "2027-03-27T02:30:00", "+01:00", "",
    )  # fmt: skip
    assert (at(change.at), change.local, change.offset) == (
        datetime(2027, 3, 28, 1, tzinfo=UTC), "2027-03-28T03:00:00", "+02:00",
    )  # fmt: skip
    assert "02:30 does not exist that day" in change.note
    assert (after.local, after.offset, after.note) == ("2027-03-29T02:30:00", "+02:00", "")


@one_engine
async def test_what_a_change_of_clocks_skips_is_told_also_of_every_few_minutes_of_an_hour(tasks: Tasks) -> None:
    tasks.clock.advance(seconds=(datetime(2027, 3, 14, tzinfo=UTC) - tasks.clock.now()).total_seconds())
    answer = await preview(tasks, schedule_kind=CRON, schedule_expr="*/30 2 * * *", timezone="America/New_York")
    times = [(time.local, time.note) for time in answer.fire_times[:2]]
    note = "02:00 does not exist that day: fires when clocks have sprung forward"
    assert times == [("2027-03-14T03:00:00", note), ("2027-03-15T02:00:00", "")]


async def test_a_schedule_that_ends_has_fewer_times(tasks: Tasks) -> None:
    answer = await preview(tasks, schedule_kind=RRULE, schedule_expr="FREQ=DAILY;COUNT=3")
    assert 0 < len(answer.fire_times) <= 3
    soon = (tasks.clock.now() + timedelta(hours=1)).isoformat()
    assert len((await preview(tasks, schedule_kind=ONCE, schedule_expr=soon)).fire_times) == 1
    assert len((await preview(tasks)).fire_times) == 0


@one_engine
@pytest.mark.parametrize(
    ("misfire", "late", "note"),
    [
        (task_pb2.MISFIRE_RUN_ONCE, timedelta(0), "has passed: it would run at once"),
        (task_pb2.MISFIRE_RUN_ONCE, timedelta(minutes=59), "has passed: it would run at once"),
        (task_pb2.MISFIRE_RUN_ALL, timedelta(days=9), "has passed: it would be missed, noticed more than 60 min late"),
        (task_pb2.MISFIRE_SKIP, timedelta(seconds=30), "has passed: it would run at once"),
        (task_pb2.MISFIRE_SKIP, timedelta(minutes=5), "has passed: it would be missed, noticed more than 30 s late"),
    ],
)
async def test_a_single_instant_that_has_passed_is_shown_with_what_would_become_of_it(
    tasks: Tasks, misfire: task_pb2.Misfire, late: timedelta, note: str
) -> None:
    instant = tasks.clock.now() - late
    fields: dict[str, Any] = {"schedule_kind": ONCE, "schedule_expr": instant.isoformat(), "misfire": misfire}
    answer = await preview(tasks, **fields)
    (time,) = answer.fire_times
    assert (answer.valid, at(time.at), time.note) == (True, instant, note)
    # And that is what becomes of it.
    task = await tasks.create(**fields)
    await tasks.service.scheduler.step()
    ((_, outcome),) = await outcomes(tasks, task.id)
    assert (outcome == task_pb2.OCCURRENCE_OUTCOME_RAN) == note.endswith("at once")


@one_engine
async def test_a_count_that_would_take_long_to_run_out_is_refused_wherever_it_is_written(tasks: Tasks) -> None:
    costly: dict[str, Any] = {
        "schedule_kind": RRULE, "schedule_expr": "FREQ=HOURLY;COUNT=10000;BYMONTHDAY=13;BYDAY=FR;BYHOUR=2",
    }  # fmt: skip
    (fault,) = (await preview(tasks, **costly)).errors
    assert (fault.field, "use a smaller COUNT, or UNTIL" in fault.description) == ("schedule_expr", True)
    task = await tasks.create()
    for write in (tasks.create(**costly), update(tasks, task.id, **costly)):
        with pytest.raises(InvalidArgument) as refused:
            await write
        assert [violation.description for violation in refused.value.violations] == [fault.description]


async def test_another_name_is_a_fault(tasks: Tasks) -> None:
    answer = await preview(tasks, created_by=new_id())
    assert [fault.field for fault in answer.errors] == ["created_by"]
    admin = TaskServiceStub(tasks.channel(["admin"]))
    assert (await admin.PreviewTask(preview_request(created_by=new_id()))).valid


async def test_a_payload_that_cannot_be_read_has_no_steps(tasks: Tasks) -> None:
    for payload in ({}, {"pipeline": 5}, {"pipeline": [{"uses": "echo.test"}], "params": {"a": "x" * 1024 * 1024}}):
        answer = await preview(tasks, payload=payload)
        assert not answer.valid
        assert list(answer.steps) == []


@one_engine
@pytest.mark.parametrize(
    ("sample", "field"), [({"event": {}}, "sample.event"), ({"steps": []}, "sample.steps"), ({"run": 5}, "sample.run")]
)
async def test_a_bad_sample_is_named(tasks: Tasks, sample: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await preview(tasks, sample)
    assert [violation.field for violation in refused.value.violations] == [field]


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [({"schedule_kind": 0}, "schedule_kind"), ({"priority": 0}, "priority"), ({"title": "x" * 201}, "title"),
     ({"schedule_expr": "x" * 1001}, "schedule_expr"), ({"role": "x" * 51}, "role")],
)  # fmt: skip
async def test_a_field_beyond_its_own_limits_is_refused(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await preview(tasks, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]


@one_engine
async def test_a_preview_of_much_is_small_and_soon_there(tasks: Tasks) -> None:
    # Each of the 60 000 templates would become 10 000 characters.
    many = [{"uses": "echo.test", "with": {f"k{n}": "${params.t}" for n in range(60)}} for _ in range(500)]
    answer = await preview(tasks, payload={"pipeline": many, "params": {"t": "x" * 10_000}})
    assert answer.valid
    assert len(answer.steps) == 500
    assert answer.ByteSize() < 3 * 1024 * 1024
    assert sum(len(step.unresolved) for step in answer.steps) == 200
    faulty = await preview(tasks, payload={"pipeline": [{"uses": 5}] * 1000})
    assert len(faulty.errors) == 201
    assert "800 faults more" in faulty.errors[-1].description

"""Creating, reading and starting tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import pytest
from baton.tasks.v1 import task_pb2
from baton.tasks.v1.task_service_pb2 import CreateTaskRequest, GetTaskRequest, RunTaskNowRequest, UpdateTaskRequest
from baton.tasks.v1.task_service_pb2_grpc import TaskServiceStub
from baton.tasks.v1.tool_pb2 import TOOL_TRANSPORT_STDIO, Tool
from baton.tasks.v1.tool_service_pb2 import CreateToolServerRequest, ReportToolsRequest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from services.chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import cancel, pause
from tests.integration.tasks.running import Tasks, one_engine, task_request

ECHO = {"uses": "echo.test"}


async def violations(tasks: Tasks, **fields: Any) -> dict[str, str]:
    """The faults of a task that is refused, by field; nothing was stored."""
    with pytest.raises(InvalidArgument) as refused:
        await tasks.create(**fields)
    assert await tasks.count(tables.tasks) == 0
    return {violation.field: violation.description for violation in refused.value.violations}


async def test_a_created_task_can_be_read(tasks: Tasks) -> None:
    payload = {
        "pipeline": [{"id": "first", "uses": "echo.test", "with": {"n": "${params.n}"}, "save_as": "one"}],
        "params": {"n": 3, "ratio": 0.5, "name": "Chișinău 🎉", "none": None, "list": [1, [2]]},
    }
    created = await tasks.create(
        title="Morning briefing", description="why", schedule_kind=task_pb2.SCHEDULE_KIND_CRON,
        schedule_expr="0 7 * * *", timezone="Europe/Chisinau", payload=payload, priority=2,
    )  # fmt: skip
    assert UUID(created.id).version == 7
    assert (created.title, created.description, created.priority) == ("Morning briefing", "why", 2)
    assert (created.schedule_expr, created.timezone) == ("0 7 * * *", "Europe/Chisinau")
    assert created.status == task_pb2.TASK_STATUS_ACTIVE
    assert created.payload == to_struct(payload)
    assert created.created_at == created.updated_at
    assert created.created_at.ToDatetime(UTC) == tasks.clock.now()
    fire = created.next_fire_at.ToDatetime(UTC)
    assert tasks.clock.now() < fire <= tasks.clock.now() + timedelta(days=1)
    for task_id in (created.id, created.id.upper()):
        assert (await tasks.tasks.GetTask(GetTaskRequest(task_id=task_id))).task == created


async def test_a_task_says_little_and_gets_the_defaults(tasks: Tasks) -> None:
    agent_id = new_id()
    caller = TaskServiceStub(tasks.channel(["tasks:write"], agent_id=agent_id))
    task = (await caller.CreateTask(task_request())).task
    assert (task.priority, task.timezone, task.created_by) == (5, "UTC", agent_id)
    assert (task.max_retries, task.backoff_strategy) == (3, task_pb2.BACKOFF_STRATEGY_EXPONENTIAL_JITTER)
    assert (task.misfire, task.overlap) == (task_pb2.MISFIRE_RUN_ONCE, task_pb2.OVERLAP_ALLOW)
    assert (task.dedupe_key, task.dedupe_window_seconds, task.concurrency_key, task.role) == ("", 0, "", "")
    for absent in ("next_fire_at", "next_scheduled_for", "paused_at"):
        assert not task.HasField(absent)


async def test_a_task_keeps_everything_that_is_said_of_it(tasks: Tasks) -> None:
    said = {
        "dedupe_key": "daily", "dedupe_window_seconds": 31_536_000, "max_retries": 0,
        "backoff_strategy": task_pb2.BACKOFF_STRATEGY_LINEAR, "concurrency_key": "printer",
        "misfire": task_pb2.MISFIRE_RUN_ALL, "overlap": task_pb2.OVERLAP_SKIP, "role": "builder",
        "schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "0 7 * * *",
    }  # fmt: skip
    task = await tasks.create(**said)
    assert {name: getattr(task, name) for name in said} == said
    assert (await tasks.tasks.GetTask(GetTaskRequest(task_id=task.id))).task == task


async def test_a_key_without_a_window_is_taken_and_a_window_without_a_key_is_not(tasks: Tasks) -> None:
    assert await violations(tasks, dedupe_window_seconds=1) == {
        "dedupe_window_seconds": "does nothing without a dedupe_key: give one, or leave it at 0"
    }
    assert (await tasks.create(dedupe_key="a")).dedupe_key == "a"


async def test_a_rule_for_late_times_is_refused_where_there_are_none(tasks: Tasks) -> None:
    fault = {"misfire": "does nothing for schedule_kind manual, which has no times: leave it at run_once"}
    assert await violations(tasks, misfire=task_pb2.MISFIRE_SKIP) == fault
    daily = await tasks.create(
        schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="0 7 * * *", misfire=task_pb2.MISFIRE_SKIP
    )
    to_manual = UpdateTaskRequest(task_id=daily.id, schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL, schedule_expr="")
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.UpdateTask(to_manual)
    assert {one.field: one.description for one in refused.value.violations} == fault


@pytest.mark.parametrize("field", ["dedupe_key", "concurrency_key"])
async def test_a_key_that_is_meant_as_a_template_is_refused(tasks: Tasks, field: str) -> None:
    """As a text it would be the same for every event: all but the first would be suppressed, or wait."""
    found = await violations(tasks, **{field: "order-${event.id}"})
    assert list(found) == [field]
    assert "is taken as it stands" in found[field]
    assert await tasks.count(tables.tasks) == 0


async def test_unknown_tasks(tasks: Tasks) -> None:
    task_id = new_id()
    calls: list[tuple[Any, Any]] = [
        (tasks.tasks.GetTask, GetTaskRequest(task_id=task_id)),
        (tasks.tasks.RunTaskNow, RunTaskNowRequest(task_id=task_id)),
        (tasks.tasks.RunTaskNow, RunTaskNowRequest(task_id=task_id, request_id="key")),
    ]
    for method, request in calls:
        with pytest.raises(NotFound, match=task_id) as refused:
            await method(request)
        assert refused.value.reason == "TASK_NOT_FOUND"
        assert refused.value.metadata == {"task_id": task_id}
    assert await tasks.count(tables.runs) == 0


@one_engine
async def test_every_fault_of_a_task_is_told_at_once(tasks: Tasks) -> None:
    pipeline = [
        {"uses": "echo.test", "with": {"text": "${steps.later.text}"}},
        {"uses": "nowhere.tool", "save_as": "later"},
        {"uses": "echo.nope", "if": "]["},
        {"uses": "bad"},
        "not a step",
    ]
    found = await violations(
        tasks, schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="often", timezone="Mars/Olympus",
        payload={"pipeline": pipeline, "extra": 1},
    )  # fmt: skip
    assert set(found) == {
        "schedule_expr",
        "timezone",
        "payload.extra",
        "payload.pipeline[0].with.text",
        "payload.pipeline[1].uses",
        "payload.pipeline[2].uses",
        "payload.pipeline[2].if",
        "payload.pipeline[3].uses",
        "payload.pipeline[4]",
    }
    assert "register it" in found["payload.pipeline[1].uses"]
    assert "it has echo.test" in found["payload.pipeline[2].uses"]


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"description": "x" * 2001}, "description"),
        ({"schedule_kind": 0}, "schedule_kind"),
        ({"schedule_kind": 99}, "schedule_kind"),
        ({"schedule_expr": "* * * * *"}, "schedule_expr"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"priority": 0}, "priority"),
        ({"priority": 10}, "priority"),
        ({"created_by": "somebody"}, "created_by"),
        ({"request_id": "x" * 256}, "request_id"),
        ({"schedule_expr": "x" * 1001}, "schedule_expr"),
        ({"dedupe_key": "x" * 101}, "dedupe_key"),
        ({"dedupe_key": "x", "dedupe_window_seconds": -1}, "dedupe_window_seconds"),
        ({"dedupe_key": "x", "dedupe_window_seconds": 31_536_001}, "dedupe_window_seconds"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 11}, "max_retries"),
        ({"backoff_strategy": 9}, "backoff_strategy"),
        ({"concurrency_key": "x" * 101}, "concurrency_key"),
        ({"misfire": 9}, "misfire"),
        ({"overlap": 9}, "overlap"),
        ({"role": "x" * 51}, "role"),
        ({"payload": {}}, "payload.pipeline"),
        ({"payload": {"pipeline": [], "params": {"a": "x\x00"}}}, "payload.params.a"),
    ],
)
async def test_a_bad_field_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    (found,) = await violations(tasks, **fields)
    assert found == field


@one_engine
async def test_a_payload_is_required(tasks: Tasks) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.CreateTask(CreateTaskRequest(title="a", schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL))
    assert [violation.field for violation in refused.value.violations] == ["payload"]


@one_engine
async def test_a_schedule_that_never_comes_true_is_refused(tasks: Tasks) -> None:
    found = await violations(tasks, schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="0 0 */30 2 1#5")
    assert found == {"schedule_expr": "'0 0 */30 2 1#5' never comes true"}


async def test_a_payload_may_be_one_mebibyte_and_no_more(tasks: Tasks) -> None:
    # {"pipeline":[],"params":{"text":"..."}} is 36 characters around the text.
    def payload(size: int) -> dict[str, Any]:
        return {"pipeline": [], "params": {"text": "x" * (size - 36)}}

    assert await violations(tasks, payload=payload(1024 * 1024 + 1)) == {
        "payload": "is 1048577 bytes as JSON, at most 1048576 are allowed"
    }
    await tasks.create(payload=payload(1024 * 1024))


async def test_only_admin_creates_in_anothers_name(tasks: Tasks) -> None:
    agent_id, other_id = new_id(), new_id()
    caller = TaskServiceStub(tasks.channel(["tasks:write"], agent_id=agent_id))
    with pytest.raises(PermissionDenied) as refused:
        await caller.CreateTask(task_request(created_by=other_id))
    assert refused.value.reason == "CREATED_BY_NOT_CALLER"
    assert await tasks.count(tables.tasks) == 0
    # One's own name is no other, in capitals neither.
    for own in (agent_id, agent_id.upper()):
        assert (await caller.CreateTask(task_request(created_by=own))).task.created_by == agent_id
    admin = TaskServiceStub(tasks.channel(["admin"]))
    assert (await admin.CreateTask(task_request(created_by=other_id))).task.created_by == other_id


async def test_a_repeated_request_creates_one_task(tasks: Tasks) -> None:
    request = task_request(request_id="the key")
    first = await tasks.tasks.CreateTask(request)
    assert await tasks.tasks.CreateTask(request) == first
    assert await tasks.count(tables.tasks) == 1
    with pytest.raises(InvalidArgument) as refused:
        await tasks.tasks.CreateTask(task_request(request_id="the key", title="another"))
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"
    # Somebody else's key is another key.
    other = TaskServiceStub(tasks.channel())
    assert (await other.CreateTask(request)).task.id != first.task.id


async def test_run_now_queues_one_run(tasks: Tasks) -> None:
    payload = {"pipeline": [ECHO], "params": {"day": "Monday"}}
    task = await tasks.create(title="t" * 200, priority=3, payload=payload)
    response = await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id))
    assert response.success
    assert response.details.run_id in response.message
    assert response.details.task_id == task.id
    assert response.details.due_work_id == response.details.run_id
    run = await tasks.run(response.details.run_id)
    assert (run.task_id, run.task, run.priority) == (task.id, "t" * 64, 3)
    assert run.inputs == to_struct({"day": "Monday"})
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now()
    assert await tasks.count(tables.runs) == 1


async def test_racing_repeats_of_run_now_queue_one_run(tasks: Tasks) -> None:
    task = await tasks.create()
    request = RunTaskNowRequest(task_id=task.id, request_id="the key")

    async def attempt() -> str:
        try:
            return (await tasks.tasks.RunTaskNow(request)).details.run_id
        except Aborted as error:
            return error.reason

    answers = set(await asyncio.gather(*(attempt() for _ in range(8)))) | {await attempt()}
    assert len(answers - {"IDEMPOTENCY_KEY_IN_FLIGHT"}) == 1
    assert await tasks.count(tables.runs) == 1


async def test_a_run_can_be_given_parameters_of_its_own(tasks: Tasks) -> None:
    payload: dict[str, Any] = {"pipeline": [], "params": {"day": "Monday", "list": [1], "kept": True}}
    task = await tasks.create(payload=payload)
    params = to_struct({"day": "Friday", "list": None, "new": 2})
    answer = await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id, params=params))
    run = await tasks.run(answer.details.run_id)
    assert run.inputs == to_struct({"day": "Friday", "list": None, "kept": True, "new": 2})
    (leased,) = await tasks.lease()
    assert leased.payload["params"] == run.inputs
    # They were this run's alone.
    assert (await tasks.run(await tasks.run_now(task.id))).inputs == to_struct(payload["params"])


async def test_a_task_without_parameters_can_be_given_some(tasks: Tasks) -> None:
    task = await tasks.create()
    answer = await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id, params=to_struct({"a": 1})))
    assert (await tasks.run(answer.details.run_id)).inputs == to_struct({"a": 1})


async def test_parameters_beyond_what_a_payload_may_be_are_refused(tasks: Tasks) -> None:
    deep: Any = 1
    for _ in range(28):
        deep = [deep]
    task = await tasks.create(payload={"pipeline": [], "params": {"text": "x" * 600_000}})
    for params in ({"more": "x" * 600_000}, {"deep": [[deep]]}):
        with pytest.raises(InvalidArgument, match="payload") as refused:
            await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id, params=to_struct(params)))
        assert [violation.field for violation in refused.value.violations] == ["params"]
    assert await tasks.count(tables.runs) == 0
    # What takes the place of something large may be as large.
    for allowed in ({"text": "y" * 600_000}, {"deep": deep}):
        await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id, params=to_struct(allowed)))


async def test_within_its_window_a_run_stands_for_those_after_it(tasks: Tasks) -> None:
    task = await tasks.create(dedupe_key="the key", dedupe_window_seconds=60)
    other = await tasks.create(dedupe_key="the key", dedupe_window_seconds=30)

    async def start(task_id: str) -> tuple[str, bool]:
        details = (await tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task_id))).details
        assert details.due_work_id == details.run_id
        return details.run_id, details.duplicate

    first, duplicate = await start(task.id)
    assert not duplicate
    tasks.clock.advance(seconds=29)
    assert await start(task.id) == await start(other.id) == (first, True)
    # Whether it is finished does not matter.
    await tasks.finish((await tasks.lease())[0].lease)
    assert await start(task.id) == (first, True)
    assert await tasks.count(tables.runs) == 0
    tasks.clock.advance(seconds=1)
    # To the one whose window is over it stands for nothing any more.
    second, duplicate = await start(other.id)
    assert not duplicate
    assert await start(task.id) == (second, True)


async def test_the_keys_of_two_owners_are_two(tasks: Tasks) -> None:
    request = task_request(dedupe_key="the key", dedupe_window_seconds=60)
    for stub in (tasks.tasks, TaskServiceStub(tasks.channel(["tasks:write"]))):
        task = (await stub.CreateTask(request)).task
        assert not (await stub.RunTaskNow(RunTaskNowRequest(task_id=task.id))).details.duplicate
    assert await tasks.count(tables.runs) == 2


async def test_racing_starts_of_one_key_queue_one_run(tasks: Tasks) -> None:
    task = await tasks.create(dedupe_key="the key", dedupe_window_seconds=60)
    answers = await asyncio.gather(*(tasks.tasks.RunTaskNow(RunTaskNowRequest(task_id=task.id)) for _ in range(8)))
    assert len({answer.details.run_id for answer in answers}) == 1
    assert [answer.details.duplicate for answer in answers].count(False) == 1
    assert await tasks.count(tables.runs) == 1


@pytest.mark.parametrize(("end", "status"), [(pause, "paused"), (cancel, "canceled")])
async def test_a_task_that_is_not_active_does_not_run(
    tasks: Tasks, end: Callable[[Tasks, str], Awaitable[Any]], status: str
) -> None:
    task = await tasks.create()
    await end(tasks, task.id)
    with pytest.raises(FailedPrecondition, match=status) as refused:
        await tasks.run_now(task.id)
    assert refused.value.reason == "TASK_NOT_ACTIVE"
    assert refused.value.metadata == {"task_id": task.id, "status": status}
    assert await tasks.count(tables.runs) == 0


async def test_a_run_continues_the_trace_of_who_asked_for_it(tasks: Tasks) -> None:
    task = await tasks.create()
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(span):
        run_id = await tasks.run_now(task.id)
    assert (await tasks.run(run_id)).trace_id == f"{0xABC:032x}"
    (leased,) = await tasks.lease()
    assert leased.traceparent.startswith(f"00-{0xABC:032x}-")


async def test_the_tools_of_a_server_are_any_until_they_are_known(tasks: Tasks) -> None:
    def uses(address: str) -> dict[str, Any]:
        return {"payload": {"pipeline": [{"uses": address}]}}

    await tasks.admin_tools.CreateToolServer(
        CreateToolServerRequest(name="time", transport=TOOL_TRANSPORT_STDIO, command=["/bin/time"])
    )
    await tasks.create(**uses("time.anything"))
    await tasks.tools.ReportTools(ReportToolsRequest(server="time", tools=[Tool(address="time.now")]))
    await tasks.create(**uses("time.now"))
    with pytest.raises(InvalidArgument) as refused:
        await tasks.create(**uses("time.anything"))
    (violation,) = refused.value.violations
    assert violation.field == "payload.pipeline[0].uses"
    assert "it has time.now" in violation.description
    await tasks.tools.ReportTools(ReportToolsRequest(server="time"))
    with pytest.raises(InvalidArgument, match="it has none"):
        await tasks.create(**uses("time.now"))

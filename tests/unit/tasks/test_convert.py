"""Messages to models and back."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from baton.tasks.v1 import event_pb2, run_pb2, task_pb2, task_service_pb2, tool_pb2, tool_service_pb2, work_service_pb2

from services.chassis.backoff import BackoffStrategy
from services.chassis.errors import InvalidArgument
from services.chassis.structs import to_struct, to_value
from services.chassis.timestamps import to_timestamp
from services.tasks.convert import condition as condition_convert
from services.tasks.convert import run as run_convert
from services.tasks.convert import task as task_convert
from services.tasks.convert import tool as tool_convert
from services.tasks.convert import tool_server as tool_server_convert
from services.tasks.convert import work as work_convert
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.models.condition import Condition
from services.tasks.models.event import DeliveryOutcome, Origin
from services.tasks.models.occurrence import Outcome
from services.tasks.models.run import (
    AwaitsApproval,
    ErrorClass,
    Failed,
    LeasedRun,
    Released,
    Run,
    RunError,
    RunReport,
    RunStatus,
    RunStep,
    StepStatus,
    Succeeded,
)
from services.tasks.models.run import Lease as LeaseModel
from services.tasks.models.standing import RUN_STATUSES, Standing
from services.tasks.models.task import Misfire, NewTask, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.models.tool import Tool
from services.tasks.models.tool_server import ToolServer, ToolServerManager, ToolTransport

ENUMS: list[tuple[type[StrEnum], Any]] = [
    (ScheduleKind, task_pb2.ScheduleKind),
    (TaskStatus, task_pb2.TaskStatus),
    (BackoffStrategy, task_pb2.BackoffStrategy),
    (Misfire, task_pb2.Misfire),
    (Overlap, task_pb2.Overlap),
    (Outcome, task_pb2.OccurrenceOutcome),
    (RunStatus, run_pb2.RunStatus),
    (StepStatus, run_pb2.StepStatus),
    (ErrorClass, run_pb2.ErrorClass),
    (ToolTransport, tool_pb2.ToolTransport),
    (Origin, event_pb2.EventOrigin),
    (DeliveryOutcome, event_pb2.DeliveryOutcome),
    (ToolServerManager, tool_pb2.ToolServerManager),
]
AT = datetime(2026, 5, 12, 10, 15, 30, 123456, tzinfo=UTC)
RUN_ID, TASK_ID, TOKEN = (f"01900000-0000-7000-8000-00000000000{n}" for n in "abc")


@pytest.mark.parametrize(("members", "wire"), ENUMS)
def test_every_member_goes_there_and_back(members: type[StrEnum], wire: Any) -> None:
    for member in members:
        assert from_enum(members, wire, to_enum(member, wire)) is member


@pytest.mark.parametrize(("members", "wire"), ENUMS)
def test_the_contract_and_the_models_have_the_same_members(members: type[StrEnum], wire: Any) -> None:
    # How routed work stands is told in the words of the same enum.
    more: list[StrEnum] = list(Standing) if members is TaskStatus else []
    assert {to_enum(member, wire) for member in (*members, *more)} == {number for number in wire.values() if number}


def test_a_run_of_routed_work_stands_in_one_way() -> None:
    assert sorted(status for statuses in RUN_STATUSES.values() for status in statuses) == sorted(RunStatus)


def step(**changes: Any) -> RunStep:
    fields: dict[str, Any] = {
        "position": 0, "id": "clock", "uses": "time.now", "status": StepStatus.SUCCEEDED, "attempt": 1,
        "input_digest": "ab" * 32, "output": {"hour": 10, "zones": ["UTC", None], "exact": 0.5}, "error": None,
        "started_at": AT, "finished_at": AT, "duration_ms": 12, "span_id": "cd" * 8,
    }  # fmt: skip
    return RunStep(**fields | changes)


def reported(step: RunStep) -> RunStep:
    """A step as it comes out of a report that it was put in."""
    lease = work_service_pb2.Lease(run_id=RUN_ID, attempt=1, token=TOKEN)
    message = work_service_pb2.RunReport(lease=lease, steps=[run_convert.step_message(step)])
    (read,) = work_convert.report(message, "reports[0]", AT).steps
    return read


ERROR = RunError(ErrorClass.TOOL_TIMEOUT, "no answer in 30 s", True, "clock")


@pytest.mark.parametrize(
    "given",
    [
        step(),
        step(status=StepStatus.FAILED, output=None, error=ERROR),
        step(status=StepStatus.SKIPPED, output=None, input_digest=""),
        step(output="text"),
        step(output=[]),
        step(output=False),
        step(output=0),
    ],
)
def test_a_step_goes_there_and_back(given: RunStep) -> None:
    assert reported(given) == given


def test_a_tool_that_answered_null_did_answer() -> None:
    message = run_convert.step_message(step(output=None))
    assert message.output == to_value(None)
    assert message.HasField("output")
    assert not run_convert.step_message(step(status=StepStatus.SKIPPED, output=None)).HasField("output")


def report(**outcome: Any) -> RunReport:
    lease = work_service_pb2.Lease(run_id=RUN_ID, attempt=1, token=TOKEN)
    return work_convert.report(work_service_pb2.RunReport(lease=lease, **outcome), "reports[3]", AT)


def test_every_outcome_is_read() -> None:
    error = run_pb2.RunError(
        **{"class": run_pb2.ERROR_CLASS_TOOL_TIMEOUT}, message="no answer in 30 s", retryable=True, step_id="clock"
    )
    output = to_struct({"a": 1})
    assert report().outcome is None
    assert report(succeeded=work_service_pb2.RunSucceeded(output=output)).outcome == Succeeded({"a": 1})
    assert report(succeeded=work_service_pb2.RunSucceeded()).outcome == Succeeded({})
    assert report(failed=work_service_pb2.RunFailed(error=error, output=output)).outcome == Failed(ERROR, {"a": 1})
    assert report(released=work_service_pb2.RunReleased()).outcome == Released()


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_an_output_may_be_64_kib_and_no_more(outcome: str) -> None:
    # {"text":"..."} is eleven characters around the text.
    fitting, too_large = (to_struct({"text": "x" * (64 * 1024 - 11 + more)}) for more in (0, 1))
    message = {"succeeded": work_service_pb2.RunSucceeded, "failed": work_service_pb2.RunFailed}[outcome]
    extra = {"error": run_pb2.RunError(**{"class": run_pb2.ERROR_CLASS_TOOL})} if outcome == "failed" else {}
    report(**{outcome: message(output=fitting, **extra)})
    with pytest.raises(InvalidArgument) as refused:
        report(**{outcome: message(output=too_large, **extra)})
    (violation,) = refused.value.violations
    assert violation.field == f"reports[3].{outcome}.output"
    assert "65537 bytes" in violation.description


def reported_step(**fields: Any) -> RunStep:
    """A step of which only so much is said."""
    given = {"id": "look", "uses": "shell.ls", "status": run_pb2.STEP_STATUS_SUCCEEDED} | fields
    lease = work_service_pb2.Lease(run_id=RUN_ID, attempt=7, token=TOKEN)
    message = work_service_pb2.RunReport(lease=lease, steps=[run_pb2.RunStep(**given)])
    (read,) = work_convert.report(message, "reports[0]", AT).steps
    return read


def test_a_step_of_which_little_is_said_ended_when_it_is_reported() -> None:
    read = reported_step()
    assert (read.started_at, read.finished_at, read.duration_ms, read.attempt, read.tries) == (AT, AT, 0, 7, 1)
    assert (read.position, read.output, read.input_digest, read.span_id) == (0, None, "", "")


@pytest.mark.parametrize(
    ("given", "lasted"),
    [
        ({"started_at": AT - timedelta(seconds=2)}, 2000),
        ({"started_at": AT - timedelta(seconds=2), "finished_at": AT - timedelta(seconds=1)}, 1000),
        ({"started_at": AT - timedelta(seconds=2), "duration_ms": 7}, 7),
        ({"finished_at": AT - timedelta(seconds=9)}, 0),
        ({"started_at": AT + timedelta(seconds=2)}, 0),
    ],
)
def test_a_step_lasts_from_its_begin_to_its_end(given: dict[str, Any], lasted: int) -> None:
    times = {name: to_timestamp(value) if name != "duration_ms" else value for name, value in given.items()}
    read = reported_step(**times)
    assert read.finished_at == given.get("finished_at", AT)
    assert read.started_at == given.get("started_at", read.finished_at)
    assert read.duration_ms == lasted


def asked(**fields: Any) -> AwaitsApproval:
    outcome = report(awaiting_approval=work_service_pb2.RunAwaitsApproval(step_id="pay", **fields)).outcome
    assert isinstance(outcome, AwaitsApproval)
    return outcome


def test_a_question_is_recognised_by_its_action() -> None:
    action = {"tool": "bank.pay", "arguments": {"to": "ACME", "amount": 12}}
    spelt = b'{"arguments":{"amount":12,"to":"ACME"},"tool":"bank.pay"}'
    by_default = asked(action=to_struct(action))
    assert by_default.action_digest == hashlib.sha256(spelt).hexdigest()
    assert by_default.expires == timedelta(days=1)
    told = asked(action=to_struct(action), action_digest="ab" * 32, expires_seconds=60)
    assert (told.action_digest, told.expires) == ("ab" * 32, timedelta(seconds=60))
    used = work_service_pb2.UseApprovalRequest(action=to_struct(action))
    assert work_convert.used_digest(used) == by_default.action_digest
    assert work_convert.used_digest(work_service_pb2.UseApprovalRequest(action_digest="cd" * 32)) == "cd" * 32


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda: asked(), "reports[3].awaiting_approval.action"),
        (lambda: asked(action=to_struct({}), action_uri="/files/x"), "reports[3].awaiting_approval.action"),
        (lambda: asked(action_uri="/files/x"), "reports[3].awaiting_approval.action_digest"),
        (lambda: asked(action=to_struct({"a": math.nan})), "reports[3].awaiting_approval.action"),
        (lambda: work_convert.used_digest(work_service_pb2.UseApprovalRequest()), "action"),
        (
            lambda: work_convert.used_digest(
                work_service_pb2.UseApprovalRequest(action=to_struct({}), action_digest="ab" * 32)
            ),
            "action",
        ),
    ],
)
def test_an_action_that_cannot_be_told_apart_is_refused(ask: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ask()
    (violation,) = refused.value.violations
    assert violation.field == field


def test_a_lease_in_capitals_is_the_same_one() -> None:
    lease = work_service_pb2.Lease(run_id=RUN_ID.upper(), attempt=2, token=TOKEN.upper())
    assert work_convert.lease(lease) == LeaseModel(RUN_ID, 2, TOKEN)


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {
        "id": RUN_ID, "task_id": TASK_ID, "task": "briefing", "status": RunStatus.QUEUED, "priority": 5, "due_at": AT,
        "started_at": None, "finished_at": None, "duration_ms": None, "attempt": 0, "inputs": None, "output": None,
        "error": None, "traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "created_at": AT, "updated_at": AT,
        "batch_id": "", "role": "", "agent_id": None, "created_by": TASK_ID, "reported": False, "retry_of": None,
        "retries": 0, "max_retries": 3, "concurrency_key": "", "outputs_uri": "", "log_excerpt": "",
        "approval_state": None, "approver": "", "approval_note": "", "webhook_notified_at": None, "lease_owner": None,
        "lease_expires_at": None, "cancel_requested_at": None,
    }  # fmt: skip
    return Run(**fields | changes)


def test_a_trace_id_is_the_middle_of_its_traceparent() -> None:
    assert run().trace_id == "ab" * 16
    assert run(traceparent="").trace_id == ""


def test_what_a_run_does_not_have_is_absent() -> None:
    message = run_convert.run_message(run())
    for field in ("started_at", "finished_at", "duration_ms", "inputs", "output", "error"):
        assert not message.HasField(field), field


def test_a_run_is_told_whole() -> None:
    given = run(
        status=RunStatus.FAILED, started_at=AT, finished_at=AT, duration_ms=0, attempt=2, inputs={}, output={"a": [1]},
        error=ERROR,
    )  # fmt: skip
    message = run_convert.run_message(given)
    assert message.status == run_pb2.RUN_STATUS_FAILED
    assert message.due_at.ToDatetime(UTC) == AT
    assert (message.HasField("duration_ms"), message.duration_ms, message.attempt) == (True, 0, 2)
    assert (message.HasField("inputs"), message.output) == (True, to_struct({"a": [1]}))
    assert getattr(message.error, "class") == run_pb2.ERROR_CLASS_TOOL_TIMEOUT
    assert (message.error.message, message.error.retryable, message.error.step_id) == (
        "no answer in 30 s",
        True,
        "clock",
    )
    assert message.trace_id == "ab" * 16


def test_a_leased_run_brings_its_event_beside_its_payload() -> None:
    payload = {"pipeline": [], "params": {"a": 1}, "event": {"topic": "order.created", "payload": {"total": 3}}}
    leased = LeasedRun(
        LeaseModel(RUN_ID, 1, TOKEN), AT, TASK_ID, "briefing", payload, [], "00-a", AT, AT, RUN_ID, TASK_ID
    )
    message = work_convert.leased_message(leased)
    assert message.payload == to_struct({"pipeline": [], "params": {"a": 1}})
    assert (message.event, message.event_topic, message.event_id) == (to_struct({"total": 3}), "order.created", TASK_ID)
    bare = work_convert.leased_message(replace(leased, payload={"pipeline": []}, event_id=None))
    assert not bare.HasField("event")
    assert (bare.event_topic, bare.event_id) == ("", "")


def test_a_leased_run_brings_its_lease_and_its_steps() -> None:
    lease = LeaseModel(RUN_ID, 2, TOKEN)
    leased = LeasedRun(lease, AT, TASK_ID, "briefing", {"pipeline": []}, [step()], "00-a", AT, AT, TASK_ID)
    message = work_convert.leased_message(leased)
    assert work_convert.lease(message.lease) == leased.lease
    assert message.payload == to_struct({"pipeline": []})
    assert [item.id for item in message.steps] == ["clock"]
    assert (message.traceparent, message.expires_at.ToDatetime(UTC)) == ("00-a", AT)
    assert message.created_by == TASK_ID


def new_task(default_timezone: str = "UTC", **fields: Any) -> NewTask:
    request = task_service_pb2.CreateTaskRequest(schedule_kind=task_pb2.SCHEDULE_KIND_MANUAL, **fields)
    return task_convert.new_task(request, default_timezone)


def test_a_task_to_create_gets_its_defaults() -> None:
    new = new_task("Europe/Chisinau")
    assert (new.priority, new.timezone, new.created_by) == (5, "Europe/Chisinau", "")
    assert (new.max_retries, new.backoff_strategy) == (3, BackoffStrategy.EXPONENTIAL_JITTER)
    assert (new.misfire, new.overlap) == (Misfire.RUN_ONCE, Overlap.ALLOW)
    given = new_task(
        "Asia/Tokyo", priority=1, timezone="UTC", created_by=RUN_ID.upper(), max_retries=0,
        backoff_strategy=task_pb2.BACKOFF_STRATEGY_FIXED, misfire=task_pb2.MISFIRE_SKIP, overlap=task_pb2.OVERLAP_SKIP,
    )  # fmt: skip
    assert (given.priority, given.timezone, given.created_by) == (1, "UTC", RUN_ID)
    assert (given.max_retries, given.backoff_strategy) == (0, BackoffStrategy.FIXED)
    assert (given.misfire, given.overlap) == (Misfire.SKIP, Overlap.SKIP)


def test_what_is_given_of_a_task_is_what_changes() -> None:
    assert task_convert.task_changes(task_service_pb2.UpdateTaskRequest(task_id=TASK_ID, request_id="key")) == {}
    emptied = task_service_pb2.UpdateTaskRequest(description="", max_retries=0, payload=to_struct({}))
    assert task_convert.task_changes(emptied) == {"description": "", "max_retries": 0, "payload": {}}
    status = task_service_pb2.UpdateTaskRequest(status=task_pb2.TASK_STATUS_PAUSED)
    assert task_convert.task_changes(status) == {"status": TaskStatus.PAUSED}


def test_every_field_that_can_be_changed_is_taken_over() -> None:
    request = task_service_pb2.UpdateTaskRequest(
        title="a", description="b", schedule_kind=task_pb2.SCHEDULE_KIND_CRON, schedule_expr="c", timezone="d",
        payload=to_struct({"e": 1}), priority=1, status=task_pb2.TASK_STATUS_ACTIVE, max_retries=2,
        backoff_strategy=task_pb2.BACKOFF_STRATEGY_FIXED, concurrency_key="f", misfire=task_pb2.MISFIRE_SKIP,
        overlap=task_pb2.OVERLAP_SKIP, role="g", event_filter="h", condition=task_pb2.Condition(),
    )  # fmt: skip
    fields = {field.name for field in request.DESCRIPTOR.fields} - {"task_id", "request_id"}
    assert set(task_convert.task_changes(request)) == fields


def test_whole_numbers_in_a_payload_stay_whole() -> None:
    payload = to_struct({"params": {"count": 3, "ratio": 0.5, "on": True, "none": None}})
    params = new_task(payload=payload).payload["params"]
    assert [type(params[name]) for name in ("count", "ratio", "on", "none")] == [int, float, bool, type(None)]


def test_a_task_is_told_whole() -> None:
    payload = {"pipeline": [], "params": {"a": 1}}
    stored = Condition.stored("echo.test", {"b": 1}, 2.5, 30, 60)
    task = Task(
        id=RUN_ID, title="title", description="why", schedule_kind=ScheduleKind.CRON, schedule_expr="@daily",
        schedule_anchor=AT, timezone="UTC", payload=payload, priority=2, dedupe_key="d", dedupe_window_seconds=7,
        max_retries=4, backoff_strategy=BackoffStrategy.LINEAR, concurrency_key="c", misfire=Misfire.RUN_ALL,
        overlap=Overlap.QUEUE, role="r", created_by=TASK_ID, status=TaskStatus.PAUSED, paused_at=AT,
        next_fire_at=AT, next_scheduled_for=AT, created_at=AT, updated_at=AT, event_filter="event.a", condition=stored,
    )  # fmt: skip
    message = task_convert.task_message(task, run(id=TOKEN, status=RunStatus.RUNNING))
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in message.DESCRIPTOR.fields}
    assert (message.target, message.last_run.id, message.last_run.status) == ("r", TOKEN, run_pb2.RUN_STATUS_RUNNING)
    for name, value in vars(task).items():
        if name == "schedule_anchor":
            continue
        if name == "condition":
            assert condition_convert.condition(message.condition) == value
            continue
        told = getattr(message, name)
        if isinstance(value, datetime):
            assert told.ToDatetime(UTC) == value, name
        elif isinstance(value, StrEnum):
            continue
        elif name == "payload":
            assert told == to_struct(payload)
        else:
            assert told == value, name
    assert (message.status, message.schedule_kind) == (task_pb2.TASK_STATUS_PAUSED, task_pb2.SCHEDULE_KIND_CRON)
    assert (message.misfire, message.overlap) == (task_pb2.MISFIRE_RUN_ALL, task_pb2.OVERLAP_QUEUE)
    assert message.backoff_strategy == task_pb2.BACKOFF_STRATEGY_LINEAR
    bare = task_convert.task_message(replace(task, paused_at=None, next_fire_at=None, next_scheduled_for=None))
    told = {field.name for field, _ in bare.ListFields()}
    assert told.isdisjoint({"paused_at", "next_fire_at", "next_scheduled_for"})


def test_tools_and_their_servers_go_there_and_back() -> None:
    request = tool_service_pb2.CreateToolServerRequest(
        name="time", transport=tool_pb2.TOOL_TRANSPORT_STDIO, command=["/bin/time", "-s"], env={"TZ": "UTC"}
    )
    new = tool_server_convert.new_tool_server(request)
    assert (new.command, new.env, new.timeout_seconds) == (["/bin/time", "-s"], {"TZ": "UTC"}, 30)
    message = tool_server_convert.tool_server_message(
        ToolServer(**vars(new), managed_by=ToolServerManager.API, created_at=AT)
    )
    assert (message.name, message.transport, dict(message.env)) == (
        "time",
        tool_pb2.TOOL_TRANSPORT_STDIO,
        {"TZ": "UTC"},
    )
    schema = {"type": "object", "properties": {"zone": {"type": "string"}}}
    tool = Tool("time.now", "Tells the time.", schema, output_schema={"type": "object"})
    told = tool_convert.tool_message(tool)
    assert tool_convert.tool(told) == tool

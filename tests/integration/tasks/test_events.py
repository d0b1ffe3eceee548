"""Publishing events: which tasks they make run, with what, and why not."""

import asyncio
from typing import Any

import pytest
from baton.tasks.v1 import event_pb2
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.event_service_pb2_grpc import EventServiceStub
from baton.tasks.v1.run_service_pb2 import RetryRunRequest
from baton.tasks.v1.task_pb2 import OVERLAP_QUEUE, OVERLAP_SKIP
from baton.tasks.v1.work_service_pb2 import LeasedRun, RunFailed, RunReport
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from services.chassis.errors import InvalidArgument, NotFound, PermissionDenied
from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.events import (
    FILTER_ERROR,
    FILTERED,
    NO_TASK,
    PAUSED,
    RAN,
    SKIPPED,
    SUPPRESSED,
    event_of,
    event_request,
    publish,
    publisher,
    runs_of_event,
    waiting_for,
)
from tests.integration.tasks.lifecycle import cancel, pause, resume, update
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import PROMPTLY, failure, waiting_workers


async def test_an_event_makes_the_tasks_run_that_wait_for_its_topic(tasks: Tasks) -> None:
    exact, pattern = await waiting_for(tasks, "order.created"), await waiting_for(tasks, "order.*")
    await waiting_for(tasks, "order.paid")
    await waiting_for(tasks, "run.*")
    done = await publish(tasks, "order.created", {"id": 7})
    assert list(done.triggered_tasks) == sorted([exact.id, pattern.id])
    assert (done.event_id, done.topic, done.complete, done.reason) == (done.stream_id, "order.created", True, "")
    assert from_timestamp(done.published_at) == tasks.clock.now()
    runs = await runs_of_event(tasks, done.event_id)
    assert {run.task_id: run.id for run in runs} == {one.task_id: one.run_id for one in done.deliveries}
    assert [one.outcome for one in done.deliveries] == [RAN, RAN]
    assert all(run.due_at == to_timestamp(tasks.clock.now()) for run in runs)
    assert (await tasks.run(runs[0].id)).event_id == done.event_id


async def test_the_answer_is_that_of_the_earlier_scheduler(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.created")
    answer = await publisher(tasks).PublishEvent(event_request())
    assert answer.success
    assert answer.message == f"event {answer.details.event_id} is published to 'order.created': 1 run is queued"
    assert list(answer.details.triggered_tasks) == [task.id]


async def test_an_event_that_matches_no_task_is_kept_and_says_so(tasks: Tasks) -> None:
    manual, canceled = await tasks.create(), await waiting_for(tasks, "order.created")
    await cancel(tasks, canceled.id)
    done = await publish(tasks, "order.created", {"id": 7})
    assert (list(done.triggered_tasks), list(done.deliveries), done.reason) == ([], [], NO_TASK)
    kept = (await event_of(tasks, done.event_id)).event
    assert (kept.reason, kept.matched_tasks, kept.triggered_runs) == (NO_TASK, 0, 0)
    assert from_struct(kept.payload) == {"id": 7}
    assert await tasks.count(tables.runs) == 0, manual.id


async def test_an_event_is_kept_whole_with_who_published_it(tasks: Tasks) -> None:
    agent_id = new_id()
    task = await waiting_for(tasks, "order.*")
    answer = await publisher(tasks, agent_id=agent_id).PublishEvent(
        event_request(payload={"total": 1.5, "tags": ["a"]})
    )
    read = await event_of(tasks, answer.details.event_id)
    event, (delivery,) = read.event, read.deliveries
    assert (event.id, event.topic) == (answer.details.event_id, "order.created")
    assert event.origin == event_pb2.EVENT_ORIGIN_EXTERNAL
    assert from_struct(event.payload) == {"total": 1.5, "tags": ["a"]}
    assert event.payload_bytes == len('{"total":1.5,"tags":["a"]}')
    assert (event.source_agent_id, event.published_by) == (agent_id, agent_id)
    assert (event.depth, event.matched_tasks, event.triggered_runs, event.reason) == (0, 1, 1, "")
    assert event.dispatched_at == event.published_at == answer.details.published_at
    assert not event.HasField("replay_of")
    assert (delivery.event_id, delivery.task_id, delivery.outcome, delivery.reason) == (event.id, task.id, RAN, "")
    assert delivery.decided_at == event.published_at


async def test_a_run_sees_its_event_and_a_retry_sees_the_same(tasks: Tasks) -> None:
    step = {"uses": "echo.test", "with": {"text": "${event.id}", "topic": "${run.topic}", "event": "${run.event_id}"}}
    await waiting_for(tasks, "order.*", payload={"pipeline": [step], "params": {"a": 1}}, max_retries=0)
    done = await publish(tasks, "order.created", {"id": 7})
    (leased,) = await tasks.lease()
    assert from_struct(leased.event) == {"id": 7}
    assert (leased.event_topic, leased.event_id) == ("order.created", done.event_id)
    assert from_struct(leased.payload) == {"pipeline": [step], "params": {"a": 1}}
    await tasks.report(failed(leased))
    anew = (await tasks.runs.RetryRun(RetryRunRequest(run_id=leased.lease.run_id))).run
    assert anew.event_id == done.event_id
    (again,) = await tasks.lease()
    assert (again.lease.run_id, again.event, again.event_topic, again.event_id) == (
        anew.id, leased.event, "order.created", done.event_id,
    )  # fmt: skip
    assert {run.id for run in await runs_of_event(tasks, done.event_id)} == {leased.lease.run_id, anew.id}
    assert from_struct((await tasks.run(anew.id)).inputs) == {"a": 1}


async def test_what_the_task_says_of_its_runs_holds(tasks: Tasks) -> None:
    await waiting_for(
        tasks, "order.*", role="reviewer", priority=2, max_retries=7, concurrency_key="printer", title="Review"
    )
    done = await publish(tasks)
    (run,) = await runs_of_event(tasks, done.event_id)
    assert (run.role, run.priority, run.max_retries, run.concurrency_key, run.task) == (
        "reviewer", 2, 7, "printer", "Review",
    )  # fmt: skip
    await publish(tasks)
    assert len(await tasks.lease(limit=10, role="reviewer")) == 1, "one of a key at a time"


async def test_a_filter_decides_and_says_why(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.total > 100 && topic.endsWith('created')")
    assert (await publish(tasks, payload={"total": 101})).deliveries[0].outcome == RAN
    (filtered,) = (done := await publish(tasks, payload={"total": 100})).deliveries
    assert (filtered.outcome, filtered.run_id) == (FILTERED, "")
    assert filtered.reason == f"the filter is not true: {task.event_filter}"
    assert (list(done.triggered_tasks), done.reason) == ([], "1 task has its topic, and none ran")
    (broken,) = (await publish(tasks, payload={"sum": 1})).deliveries
    assert broken.outcome == FILTER_ERROR
    assert broken.reason == 'the filter cannot be evaluated: key not found in map : "total"'
    (other,) = (await publish(tasks, "order.paid", {"total": 101})).deliveries
    assert other.outcome == FILTERED
    assert await tasks.count(tables.runs) == 1


async def test_a_filter_that_would_take_too_long_fails_that_task_alone(tasks: Tasks) -> None:
    slow = await waiting_for(tasks, "order.*", event_filter="event.items.all(x, event.items == event.items)")
    fine = await waiting_for(tasks, "order.*")
    done = await publish(tasks, payload={"items": list(range(9000))})
    found = {delivery.task_id: delivery for delivery in done.deliveries}
    assert (found[slow.id].outcome, found[fine.id].outcome) == (FILTER_ERROR, RAN)
    assert found[slow.id].reason == "the filter is too much work for an event of 43901 bytes"


async def test_a_paused_task_makes_no_run_and_the_event_says_so(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", event_filter="event.nowhere")
    await pause(tasks, task.id)
    (delivery,) = (await publish(tasks)).deliveries
    assert (delivery.outcome, delivery.reason) == (PAUSED, "the task was paused")
    await resume(tasks, task.id)
    assert await tasks.count(tables.runs) == 0, "what came meanwhile is not made up for"
    (delivery,) = (await publish(tasks, payload={"nowhere": True})).deliveries
    assert delivery.outcome == RAN


async def test_a_task_skips_what_overlaps(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*", overlap=OVERLAP_SKIP)
    first, second = [(await publish(tasks)).deliveries[0] for _ in range(2)]
    assert (first.outcome, second.outcome, second.run_id) == (RAN, SKIPPED, first.run_id)
    assert second.reason == "the run before it was not finished"
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    assert (await publish(tasks)).deliveries[0].outcome == RAN


async def test_a_task_queues_what_overlaps(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.*", overlap=OVERLAP_QUEUE)
    done = await publish(tasks)
    (run,) = await runs_of_event(tasks, done.event_id)
    assert run.concurrency_key == f"task/{task.id}"


async def test_a_duplicate_within_the_window_is_suppressed_and_names_the_run(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*", dedupe_key="order", dedupe_window_seconds=60)
    first, second = [(await publish(tasks)).deliveries[0] for _ in range(2)]
    assert (second.outcome, second.run_id) == (SUPPRESSED, first.run_id)
    tasks.clock.advance(seconds=60)
    assert (await publish(tasks)).deliveries[0].outcome == RAN


async def test_two_tasks_of_one_key_make_one_run_of_one_event(tasks: Tasks) -> None:
    for _ in range(2):
        await waiting_for(tasks, "order.*", dedupe_key="order", dedupe_window_seconds=60)
    ran, suppressed = (await publish(tasks)).deliveries
    assert (ran.outcome, suppressed.outcome, suppressed.run_id) == (RAN, SUPPRESSED, ran.run_id)


async def test_a_repeated_request_is_one_event(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    one = publisher(tasks)
    request = event_request(payload={"id": 7}, request_id="the key")
    first, second = await one.PublishEvent(request), await one.PublishEvent(request)
    assert first == second
    assert (await tasks.count(tables.events), await tasks.count(tables.runs)) == (1, 1)
    with pytest.raises(InvalidArgument) as refused:
        await one.PublishEvent(event_request(payload={"id": 8}, request_id="the key"))
    assert refused.value.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_workers_that_wait_hear_of_it(tasks: Tasks, hints_only: None) -> None:
    await waiting_for(tasks, "order.*")
    (worker,) = await waiting_workers(tasks)
    done = await publish(tasks)
    assert await asyncio.wait_for(worker, PROMPTLY) == [done.deliveries[0].run_id]


async def test_the_run_goes_on_in_the_callers_trace(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    calling = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(calling)):
        done = await publish(tasks)
    (leased,) = await tasks.lease()
    assert leased.traceparent.startswith(f"00-{0xABC:032x}-")
    assert (await event_of(tasks, done.event_id)).event.trace_id == f"{0xABC:032x}"


async def test_publishing_is_audited_with_what_it_did(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*")
    agent_id = new_id()
    one = publisher(tasks, agent_id=agent_id)
    done = (await one.PublishEvent(event_request(payload={"id": 7}, request_id="the key"))).details
    (entry,) = await audited_changes(tasks)
    assert (entry["action"], entry["actor"], entry["resource"], entry["request_id"]) == (
        "event.publish", agent_id, f"event/{done.event_id}", "the key",
    )  # fmt: skip
    assert entry["after"] == {
        "topic": "order.created", "source_agent_id": agent_id, "payload_bytes": 8, "matched_tasks": 1,
        "triggered_runs": 1, "replay_of": None,
    }  # fmt: skip


async def test_the_source_is_the_caller_unless_an_administrator_says_otherwise(tasks: Tasks) -> None:
    mine, other = new_id(), new_id()
    one = publisher(tasks, agent_id=mine)
    for source in ("", mine, mine.upper()):
        done = (await one.PublishEvent(event_request(source_agent_id=source))).details
        assert (await event_of(tasks, done.event_id)).event.source_agent_id == mine
    with pytest.raises(PermissionDenied) as refused:
        await one.PublishEvent(event_request(source_agent_id=other))
    assert refused.value.reason == "SOURCE_NOT_CALLER"
    assert await tasks.count(tables.events) == 3
    admin = EventServiceStub(tasks.channel(["admin"], agent_id=mine))
    done = (await admin.PublishEvent(event_request(source_agent_id=other))).details
    event = (await event_of(tasks, done.event_id)).event
    assert (event.source_agent_id, event.published_by) == (other, mine)


@pytest.mark.parametrize(
    ("request_", "field", "fault"),
    [
        (event_request("order..created"), "topic", "is no topic"),
        (event_request("order.*"), "topic", "is no topic"),
        (event_request("run.succeeded"), "topic", "are Baton's own"),
        (event_request(""), "topic", "1 character"),
        (event_request("x" * 101), "topic", "100 characters"),
        (pb.PublishEventRequest(topic="a"), "payload", "required"),
        (event_request(payload={"a": "x" * 262_137}), "payload", "is 262145 bytes as JSON, at most 262144 are allowed"),
        (event_request(source_agent_id="me"), "source_agent_id", "UUID"),
        (event_request(request_id="x" * 256), "request_id", "255"),
    ],
)
@one_engine
async def test_what_is_no_event_is_refused_by_name(tasks: Tasks, request_: Any, field: str, fault: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await publisher(tasks).PublishEvent(request_)
    assert [(one.field, fault in one.description) for one in refused.value.violations] == [(field, True)], refused.value
    assert await tasks.count(tables.events) == 0


@one_engine
async def test_all_faults_are_told_at_once(tasks: Tasks) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await publisher(tasks).PublishEvent(event_request("a b", {"a": "x" * 300_000}))
    assert [one.field for one in refused.value.violations] == ["topic", "payload"]


async def test_the_largest_and_the_deepest_event_is_taken(tasks: Tasks) -> None:
    deep: Any = 1
    for _ in range(29):
        deep = {"a": deep}
    await waiting_for(tasks, "order.*", payload={"pipeline": [{"uses": "echo.test", "with": {"all": "${event.b}"}}]})
    for payload in ({"a": "x" * (256 * 1024 - 8)}, {"b": deep}):
        done = await publish(tasks, payload=payload)
        assert from_struct((await event_of(tasks, done.event_id)).event.payload) == payload
        (leased,) = await tasks.lease()
        assert from_struct(leased.event) == payload
    with pytest.raises(InvalidArgument) as refused:
        await publish(tasks, payload={"c": {"b": deep}})
    assert [one.description for one in refused.value.violations] == ["is nested deeper than 30 levels"]


async def test_a_task_that_is_changed_waits_for_something_else(tasks: Tasks) -> None:
    task = await waiting_for(tasks, "order.created", event_filter="event.id == 1")
    changed = await update(tasks, task.id, schedule_expr="invoice.**", event_filter="")
    assert (changed.schedule_expr, changed.event_filter) == ("invoice.**", "")
    assert (await publish(tasks, "order.created", {"id": 1})).reason == NO_TASK
    assert list((await publish(tasks, "invoice.paid.late")).triggered_tasks) == [task.id]


@one_engine
async def test_an_event_that_is_not_there(tasks: Tasks) -> None:
    one, event_id = publisher(tasks), new_id()
    for call in (
        lambda: one.GetEvent(pb.GetEventRequest(event_id=event_id)),
        lambda: one.ListEventDeliveries(pb.ListEventDeliveriesRequest(event_id=event_id)),
        lambda: one.ReplayEvent(pb.ReplayEventRequest(event_id=event_id)),
    ):
        with pytest.raises(NotFound) as missing:
            await call()
        assert (missing.value.reason, missing.value.metadata) == ("EVENT_NOT_FOUND", {"event_id": event_id})


def failed(leased: LeasedRun) -> RunReport:
    return RunReport(lease=leased.lease, failed=RunFailed(error=failure()))

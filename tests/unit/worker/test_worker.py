import sys

import grpc
import orjson
import pytest
from baton.tasks.v1 import run_pb2
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.pipeline import canonical
from services.worker.held import LeaseTiming
from tests.support.fake_tasks import FakeTasks
from tests.support.mcp_servers import serve_over_http, slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

SUCCEEDED = run_pb2.STEP_STATUS_SUCCEEDED
FAILED = run_pb2.STEP_STATUS_FAILED
SKIPPED = run_pb2.STEP_STATUS_SKIPPED
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def error_class(error: run_pb2.RunError) -> str:
    return run_pb2.ErrorClass.Name(getattr(error, "class")).removeprefix("ERROR_CLASS_").lower()


async def test_steps_run_in_order_and_see_what_earlier_ones_saved(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(
            await tasks.enqueue(
                {"uses": "echo.test", "with": {"n": "${params.n}", "title": "${task.title}"}, "save_as": "first"},
                {"id": "two", "uses": "echo.test", "with": {"text": "got ${steps.first.n}", "run": "${run}"}},
                {"uses": "echo.test", "with": {"all": "${steps}", "year": "${now[:2]}"}, "save_as": "last"},
                params={"n": 5},
            )
        )
    assert [(step.position, step.id, step.status) for step in run.steps] == [
        (0, "step_1", SUCCEEDED),
        (1, "two", SUCCEEDED),
        (2, "step_3", SUCCEEDED),
    ]
    assert run.step_output("two")["text"] == "got 5"
    assert run.step_output("two")["run"]["id"] == run.id
    first = {"n": 5, "title": "a task"}
    assert run.output == {"first": first, "last": {"all": {"first": first}, "year": "20"}}
    assert run.steps[0].input_digest == canonical.digest(first)
    assert run.steps[0].started_at.ToDatetime() <= run.steps[0].finished_at.ToDatetime()


async def test_the_last_step_is_reported_together_with_the_outcome(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}, {"uses": "echo.test"}))
    assert run.outcome is not None
    assert [[step.id for step in report.steps] for report in tasks.reports] == [["step_1"], ["step_2"]]
    assert tasks.reports[-1].HasField("succeeded")


async def test_an_empty_pipeline_succeeds(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue())
    assert (run.steps, run.output) == ([], {})


async def test_a_step_whose_condition_is_not_true_is_skipped(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(
            await tasks.enqueue(
                {"uses": "echo.test", "if": "params.wanted", "with": {"bad": "${steps}"}, "save_as": "maybe"},
                {"uses": "echo.test", "with": {"value": "${steps.maybe || 'none'}"}, "save_as": "then"},
                params={"wanted": False},
            )
        )
    assert [step.status for step in run.steps] == [SKIPPED, SUCCEEDED]
    assert run.steps[0].input_digest == ""
    assert run.output == {"then": {"value": "none"}}


async def test_steps_read_the_event_that_made_the_run(tasks: FakeTasks, working: Working) -> None:
    step = {
        "uses": "echo.test",
        "if": "event.total > `100`",
        "with": {"id": "${event.id}", "all": "${event}", "topic": "${run.topic}", "event_id": "${run.event_id}"},
        "save_as": "seen",
    }
    event = {"id": 7, "total": 150.5}
    async with working():
        run = await tasks.ended(
            await tasks.enqueue(step, event=event, event_topic="order.created", event_id="the event")
        )
        small = await tasks.ended(await tasks.enqueue(step, event={"total": 5}, event_topic="order.created"))
    assert run.output == {
        "seen": {"id": 7, "all": event, "topic": "order.created", "event_id": "the event"},
    }
    assert [step.status for step in small.steps] == [SKIPPED]


async def test_without_an_event_there_is_nothing_to_read_in_it(tasks: FakeTasks, working: Working) -> None:
    reads = {"uses": "echo.test", "with": {"text": "${event.id}"}}
    nothing = {"uses": "echo.test", "with": {"event": "${event}", "topic": "${run.topic}"}, "save_as": "seen"}
    async with working():
        run = await tasks.ended(await tasks.enqueue(nothing, reads))
    assert run.output == {"seen": {"event": {}, "topic": None}}
    assert run.error.message == "with.text: event.id is missing: event is an empty object"


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        (
            {"with": {"x": "${steps.first.nope}"}},
            "template",
            "with.x: steps.first.nope is missing: steps.first has a",
        ),
        ({"if": "length(steps.first.a)"}, "condition", "if: length() takes string or array or object and was given"),
        ({"uses": "none.tool"}, "validation", "tool server none is not registered"),
    ],
)
async def test_a_failed_step_ends_the_run_and_says_why(
    tasks: FakeTasks, working: Working, step: dict[str, object], kind: str, message: str
) -> None:
    async with working():
        run = await tasks.ended(
            await tasks.enqueue(
                {"uses": "echo.test", "with": {"a": 1}, "save_as": "first"},
                {"id": "bad", "uses": "echo.test", **step},
                {"uses": "echo.test"},
            )
        )
    assert [step.status for step in run.steps] == [SUCCEEDED, FAILED]
    assert (error_class(run.error), run.error.retryable, run.error.step_id) == (kind, False, "bad")
    assert run.error.message.startswith(message)
    assert run.steps[1].error == run.error
    assert run.output == {"first": {"a": 1}}


async def test_a_payload_that_is_no_pipeline_fails_the_run(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test", "retry": {}}))
    assert error_class(run.error) == "validation"
    assert "payload.pipeline[0].retry" in run.error.message


async def test_saved_outputs_are_bounded_in_all(tasks: FakeTasks, working: Working, http_server: str) -> None:
    big = {"uses": "mis.big", "with": {"size": 3_000_000}}
    async with working():
        run = await tasks.ended(await tasks.enqueue({**big, "save_as": "a"}, {**big, "save_as": "b"}))
    assert (error_class(run.error), run.output) == ("validation", {})
    assert run.error.message == "the saved outputs have more than 4194304 bytes in all"
    assert [step.status for step in run.steps] == [SUCCEEDED, SUCCEEDED]
    kept = orjson.loads(tasks.files[run.outcome.outputs_uri.removeprefix("/files/")])
    assert kept == {"a": "x" * 3_000_000}


async def test_tools_of_an_mcp_server_over_http(tasks: FakeTasks, working: Working, http_server: str) -> None:
    async with working():
        run = await tasks.ended(
            await tasks.enqueue(
                {"uses": "mis.add", "with": {"a": 2, "b": 3}, "save_as": "sum"},
                {"uses": "mis.say", "with": {"text": '{"n": [${steps.sum.result}]}'}, "save_as": "json"},
                {"uses": "mis.say", "with": {"text": "plain"}, "save_as": "text"},
            )
        )
        await await_until(lambda: "mis" in tasks.tools)
    assert run.output == {"sum": {"result": 5}, "json": {"n": [5]}, "text": "plain"}
    assert "mis.add" in tasks.tools["mis"]


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        ({"uses": "mis.fail", "with": {"message": "no luck"}}, "tool", "no luck"),
        ({"uses": "mis.big", "with": {"size": 5_000_000}}, "tool", "output is 5000002 bytes, at most 4194304"),
        ({"uses": "mis.slow", "with": {"seconds": 60}, "timeout_seconds": 0.2}, "tool_timeout", "within 0.2 s"),
        ({"uses": "mis.add", "with": {"a": 1, "b": "x"}}, "validation", "with.b: 'x' is not of type 'integer'"),
        ({"uses": "mis.add", "with": {"a": 1}}, "validation", "with: 'b' is a required property"),
        ({"uses": "mis.nothing"}, "validation", "tool server mis has no tool nothing; it has add"),
        ({"uses": "gone.tool"}, "tool", "tool server gone cannot be reached"),
    ],
)
async def test_how_tools_fail(
    tasks: FakeTasks, working: Working, http_server: str, step: dict[str, object], kind: str, message: str
) -> None:
    tasks.add_http_server("gone", "http://127.0.0.1:9/mcp")
    async with working():
        run = await tasks.ended(await tasks.enqueue(step))
    assert error_class(run.error) == kind
    assert message in run.error.message
    assert run.error.retryable is (kind != "validation")


async def test_a_crash_of_a_tool_server_fails_one_run_and_not_the_next(tasks: FakeTasks, working: Working) -> None:
    tasks.add_stdio_server("plain", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    async with working():
        crashed = await tasks.ended(await tasks.enqueue({"uses": "plain.crash"}))
        run = await tasks.ended(await tasks.enqueue({"uses": "plain.sleep", "with": {"seconds": 0}, "save_as": "x"}))
    assert (error_class(crashed.error), crashed.error.retryable) == ("tool", True)
    message = "tool server plain ended before it answered: it ended by signal 9 (SIGKILL)"
    assert crashed.error.message == message
    assert run.output == {"x": "done"}


async def test_a_resumed_run_does_not_repeat_what_succeeded(tasks: FakeTasks, working: Working) -> None:
    run = await tasks.enqueue(
        {"uses": "echo.test", "with": {"now": "${now}"}, "save_as": "first"},
        {"id": "maybe", "uses": "echo.test", "if": "params.wanted", "save_as": "skipped"},
        {"uses": "echo.test", "with": {"seen": "${steps.first.now}", "attempt": "${run.attempt}"}, "save_as": "last"},
        params={"wanted": True},
    )
    done = run_pb2.RunStep(position=0, id="step_1", uses="echo.test", status=SUCCEEDED, attempt=1)
    done.output.struct_value.update({"now": "earlier"})
    run.steps = [done, run_pb2.RunStep(position=1, id="maybe", uses="echo.test", status=SKIPPED, attempt=1)]
    run.attempt = 1
    async with working():
        await tasks.ended(run)
    assert [step.id for step in run.steps] == ["step_1", "maybe", "step_3"]
    assert run.output == {"first": {"now": "earlier"}, "last": {"seen": "earlier", "attempt": 2}}


async def test_a_run_that_another_attempt_left_with_nothing_to_do_ends(tasks: FakeTasks, working: Working) -> None:
    run = await tasks.enqueue({"uses": "echo.test", "save_as": "x"})
    run.steps = [run_pb2.RunStep(id="step_1", status=SUCCEEDED)]
    async with working():
        await tasks.ended(run)
    assert run.output == {"x": None}


async def test_a_lost_lease_stops_the_run_and_nothing_more_is_reported(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(concurrency=1, timing=LeaseTiming(renew_every=0.05, give_up_after=5)):
        lost = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 60}})
        await await_until(lambda: lost.held and tasks.renewed)
        await tasks.take_away(lost)
        # There is one slot: it is free for this only once the lost run has let go of it.
        await tasks.ended(await tasks.enqueue({"uses": "echo.test"}))
    assert (lost.outcome, lost.released, lost.steps, tasks.refused) == (None, 0, [], 0)


async def test_a_lease_that_cannot_be_renewed_is_given_up_in_time(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    tasks.fail("RenewRuns", 10_000)
    async with working(concurrency=1, timing=LeaseTiming(renew_every=0.1, give_up_after=0.4)):
        run = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 60}})
        await await_until(lambda: run.held)
        other = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}))
    assert run.outcome is None
    assert other.outcome is not None


async def test_a_report_that_comes_too_late_is_dropped(tasks: FakeTasks, working: Working) -> None:
    tasks.paused.clear()
    async with working():
        run = await tasks.enqueue({"uses": "echo.test"}, {"uses": "echo.test"})
        await await_until(lambda: run.held)
        await tasks.take_away(run)
        tasks.paused.set()
        await await_until(lambda: tasks.refused)
    assert (run.steps, run.outcome, tasks.refused) == ([], None, 1)


async def test_a_service_that_is_away_for_a_while_loses_nothing(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("LeaseRuns", 2)
    tasks.fail("ReportRuns", 2)
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}, {"uses": "echo.test"}))
    assert [step.id for step in run.steps] == ["step_1", "step_2"]
    assert run.attempt == 1


async def test_a_record_that_the_service_never_takes_fails_the_run(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("ReportRuns", 1, grpc.StatusCode.INVALID_ARGUMENT)
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}))
    assert (error_class(run.error), run.error.retryable) == ("internal", True)


async def test_reports_of_many_runs_travel_together(tasks: FakeTasks, working: Working) -> None:
    tasks.paused.clear()
    async with working(concurrency=20):
        runs = [await tasks.enqueue({"uses": "echo.test"}) for _ in range(20)]
        await await_until(lambda: all(run.held for run in runs))
        tasks.paused.set()
        for run in runs:
            await tasks.ended(run)
    assert sum(tasks.batches) == 20
    assert len(tasks.batches) <= 5


async def test_stopping_lets_runs_finish_within_the_grace(tasks: FakeTasks, working: Working, http_server: str) -> None:
    async with working() as stop:
        run = await tasks.enqueue({"uses": "mis.slow", "with": {"seconds": 0.3}}, {"uses": "echo.test"})
        await await_until(lambda: slow_calls.now)
        stop.set()
    assert run.outcome is not None
    assert run.outcome.HasField("succeeded")


async def test_stopping_gives_back_what_does_not_finish_with_the_steps_that_did(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working(grace_seconds=0.1) as stop:
        run = await tasks.enqueue({"uses": "echo.test"}, {"uses": "mis.slow", "with": {"seconds": 60}})
        await await_until(lambda: run.steps)
        stop.set()
    assert (run.released, run.outcome, run.held) == (1, None, False)
    assert [step.id for step in run.steps] == ["step_1"]
    await await_until(lambda: not tasks.polls)
    async with working(grace_seconds=0):
        await await_until(lambda: run.attempt == 2)


async def test_a_step_not_yet_recorded_is_given_back_recorded(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("ReportRuns", 2)
    async with working(grace_seconds=0.05) as stop:
        run = await tasks.enqueue({"uses": "echo.test"}, {"uses": "echo.test"}, {"uses": "echo.test"})
        await await_until(lambda: tasks.failed["ReportRuns"])
        stop.set()
    ended = run.outcome is not None
    assert (run.released == 1) is not ended
    assert "step_1" in [step.id for step in run.steps]


async def test_the_first_attempt_continues_the_trace_of_its_caller(
    tasks: FakeTasks, working: Working, http_server: str, spans: InMemorySpanExporter
) -> None:
    async with working():
        run = await tasks.ended(
            await tasks.enqueue({"uses": "mis.say", "with": {"text": "x"}}, traceparent=TRACEPARENT)
        )
    by_name = {span.name: span for span in spans.get_finished_spans() if _trace(span) == TRACEPARENT.split("-")[1]}
    execute, step = by_name["run.execute"], by_name["step.execute"]
    call, report = by_name["MCP send tools/call say"], by_name["baton.tasks.v1.WorkService/ReportRuns"]
    assert _parent(execute) == TRACEPARENT.split("-")[2]
    assert (_parent(step), _parent(call), _parent(report)) == (_id(execute), _id(step), _id(execute))
    assert (step.attributes or {})["baton.step.uses"] == "mis.say"
    assert run.steps[0].span_id == _id(step)
    assert tasks.report_traceparents[-1].split("-")[1:3] == [TRACEPARENT.split("-")[1], _id(report)]


async def test_a_later_attempt_begins_a_trace_of_its_own_with_a_link(
    tasks: FakeTasks, working: Working, spans: InMemorySpanExporter
) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}, traceparent=TRACEPARENT, attempt=1))
    execute = next(
        span
        for span in spans.get_finished_spans()
        if span.name == "run.execute" and (span.attributes or {})["baton.run.id"] == run.id
    )
    assert execute.parent is None
    assert [format(link.context.trace_id, "032x") for link in execute.links] == [TRACEPARENT.split("-")[1]]


async def test_a_new_tool_server_is_found_when_a_step_needs_it(tasks: FakeTasks, working: Working) -> None:
    async with serve_over_http() as url, working():
        await tasks.ended(await tasks.enqueue())
        tasks.add_http_server("late", url)
        tasks.add_http_server("later", url)
        run = await tasks.ended(await tasks.enqueue({"uses": "later.say", "with": {"text": "hi"}, "save_as": "x"}))
    assert run.output == {"x": "hi"}


async def test_each_start_is_a_worker_of_its_own(tasks: FakeTasks, working: Working) -> None:
    workers = set()
    for _ in range(2):
        async with working():
            workers.add((await tasks.ended(await tasks.enqueue())).leased_by)
        await await_until(lambda: not tasks.polls)
    assert len(workers) == 2


def _trace(span: object) -> str:
    return format(span.context.trace_id, "032x")  # type: ignore[attr-defined]


def _id(span: object) -> str:
    return format(span.context.span_id, "016x")  # type: ignore[attr-defined]


def _parent(span: object) -> str:
    parent = span.parent  # type: ignore[attr-defined]
    return format(parent.span_id, "016x") if parent else ""

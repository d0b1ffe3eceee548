"""What steps say beside their call: retry, on_error, foreach."""

import asyncio
from typing import Any

import grpc
import orjson
import pytest
from baton.tasks.v1 import run_pb2

from services.chassis import structs
from services.chassis.ids import new_id
from services.pipeline import canonical
from tests.support.fake_tasks import FakeRun, FakeTasks
from tests.support.mcp_servers import flaky_calls, slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working
from tests.unit.worker.test_worker import FAILED, SKIPPED, SUCCEEDED, error_class

pytestmark = pytest.mark.usefixtures("http_server")


def flaky(failures: int, name: str = "", **step: Any) -> dict[str, Any]:
    return {"uses": "mis.flaky", "with": {"name": name or new_id(), "failures": failures}, **step}


def each(items: Any, with_: dict[str, Any], uses: str = "echo.test", **step: Any) -> dict[str, Any]:
    foreach = {"items": items, **step.pop("foreach", {})}
    return {"uses": uses, "with": with_, "foreach": foreach, "save_as": "all", **step}


async def ended(tasks: FakeTasks, working: Working, *steps: dict[str, Any], **run: Any) -> FakeRun:
    async with working():
        return await tasks.ended(await tasks.enqueue(*steps, **run))


def at(items: list[run_pb2.RunStep]) -> list[int]:
    return [item.item for item in items]


async def test_a_step_is_tried_again_as_often_as_it_says(tasks: FakeTasks, working: Working) -> None:
    step = flaky(2, retry={"max": 2, "backoff": "linear"}, save_as="answer")
    run = await ended(tasks, working, step)
    assert run.output == {"answer": 3}
    assert [(record.status, record.tries, record.attempt) for record in run.steps] == [
        (FAILED, 1, 1),
        (FAILED, 2, 2),
        (SUCCEEDED, 3, 3),
    ]
    # It waits in the queue, and not with a worker, and longer each time.
    assert [wait.wait.ToTimedelta().total_seconds() for wait in run.deferred] == [1, 2]
    assert run.deferred[0].error.message.endswith("failed for the 1. time")


async def test_a_step_whose_retries_are_used_up_fails_its_run_for_good(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, flaky(9, retry={"max": 1, "backoff": "fixed"}))
    assert (error_class(run.error), run.outcome.failed.final, run.steps[-1].tries) == ("tool", True, 2)


async def test_without_retries_of_its_own_the_run_has_those_of_its_task(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, flaky(9))
    assert (run.outcome.failed.final, run.deferred) == (False, [])


async def test_what_cannot_pass_is_not_tried_again(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, {"uses": "mis.add", "with": {"a": "no"}, "retry": {"max": 5}})
    assert (error_class(run.error), run.deferred) == ("validation", [])


async def test_a_retry_waits_as_long_as_the_tool_asks(tasks: FakeTasks, working: Working) -> None:
    step = {"uses": "mis.busy", "with": {"seconds": 90}, "retry": {"max": 1, "backoff": "fixed"}}
    run = await ended(tasks, working, step)
    assert [wait.wait.ToTimedelta().total_seconds() for wait in run.deferred] == [90]


async def test_a_run_goes_on_after_a_step_that_may_fail(tasks: FakeTasks, working: Working) -> None:
    run = await ended(
        tasks,
        working,
        {"uses": "mis.fail", "with": {"message": "no luck"}, "on_error": "continue", "save_as": "it"},
        {"uses": "echo.test", "if": "steps.it.error", "with": {"why": "${steps.it.error.message}"}, "save_as": "told"},
    )
    assert run.ending == "succeeded"
    assert run.output["it"] == {"error": {"class": "tool", "message": "Error executing tool fail: no luck"}}
    assert run.output["told"] == {"why": run.output["it"]["error"]["message"]}
    assert [step.status for step in run.steps] == [FAILED, SUCCEEDED]


async def test_a_failure_that_was_gone_past_is_not_tried_again_by_another_worker(
    tasks: FakeTasks, working: Working
) -> None:
    name = new_id()
    steps = (
        flaky(9, name, on_error="continue", save_as="it"),
        {"uses": "mis.slow", "with": {"seconds": 30}},
    )
    async with working(grace_seconds=0):
        run = await tasks.enqueue(*steps)
        await await_until(lambda: slow_calls.now == 1)
    run.payload["pipeline"][1] = {"uses": "echo.test", "with": {"it": "${steps.it.error.class}"}, "save_as": "told"}
    async with working():
        await tasks.ended(run)
    assert (flaky_calls[name], run.output["told"]) == (1, {"it": "tool"})


async def test_a_step_that_may_fail_is_retried_first(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, flaky(9, retry={"max": 2, "backoff": "fixed"}, on_error="continue"))
    assert (run.ending, len(run.deferred), run.steps[-1].tries) == ("succeeded", 2, 3)


async def test_a_step_is_done_for_each_item(tasks: FakeTasks, working: Working) -> None:
    run = await ended(
        tasks,
        working,
        each("${params.names}", {"hello": "${who} of ${params.place}"}, foreach={"as": "who"}),
        {"uses": "echo.test", "with": {"last": "${steps.all[-1].hello}"}, "save_as": "last"},
        params={"names": ["Ana", "Bo"], "place": "Bern"},
    )
    assert run.output["all"] == [{"hello": "Ana of Bern"}, {"hello": "Bo of Bern"}]
    assert run.output["last"] == {"last": "Bo of Bern"}
    assert [(item.item, item.status, item.input_digest) for item in run.items] == [
        (0, SUCCEEDED, canonical.digest({"hello": "Ana of Bern"})),
        (1, SUCCEEDED, canonical.digest({"hello": "Bo of Bern"})),
    ]
    (whole, _) = run.steps
    assert (whole.items.total, whole.items.succeeded, whole.items.failed) == (2, 2, 0)
    assert structs.from_value(whole.output) == run.output["all"]


async def test_no_items_are_a_list_without_any(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, each([], {}))
    assert (run.output, run.steps[0].items.total) == ({"all": []}, 0)


async def test_items_that_nobody_saves_are_only_in_their_own_records(tasks: FakeTasks, working: Working) -> None:
    step = each([1, 2], {"n": "${item}"})
    del step["save_as"]
    run = await ended(tasks, working, step)
    assert (run.output, run.steps[0].HasField("output")) == ({}, False)
    assert [structs.from_value(item.output) for item in run.items] == [{"n": 1}, {"n": 2}]


async def test_a_condition_is_for_all_items(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, each([1, 2], {}, **{"if": "params.go"}), params={"go": False})
    assert ([step.status for step in run.steps], run.items, run.output) == ([SKIPPED], [], {})


async def test_as_many_items_at_one_time_as_the_step_says(tasks: FakeTasks, working: Working) -> None:
    slow_calls.most = 0
    step = each(list(range(12)), {"seconds": 0.05}, uses="mis.slow", foreach={"parallel": 3})
    run = await ended(tasks, working, step)
    assert (slow_calls.most, len(run.output["all"])) == (3, 12)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("${params.names}", "foreach.items must become a list; ${params.names} is a string"),
        ("${params.none}", "foreach.items must become a list; ${params.none} is null"),
        ("${params.many}", "foreach.items has 10001 items, at most 10000"),
    ],
)
async def test_items_must_be_a_list_of_bounded_length(
    tasks: FakeTasks, working: Working, items: str, message: str
) -> None:
    params = {"names": "Ana", "none": None, "many": [0] * 10_001}
    run = await ended(tasks, working, each(items, {}), params=params)
    assert run.error.message == message
    assert not run.error.retryable


async def test_an_item_that_fails_keeps_further_ones_from_being_begun(tasks: FakeTasks, working: Working) -> None:
    names = [new_id() for _ in range(5)]
    items = [{"name": name, "failures": int(index == 1)} for index, name in enumerate(names)]
    with_ = {"name": "${item.name}", "failures": "${item.failures}"}
    run = await ended(tasks, working, each(items, with_, "mis.flaky"))
    assert run.error.message == f"item 1: Error executing tool flaky: {names[1]} failed for the 1. time"
    assert [flaky_calls[name] for name in names] == [1, 1, 0, 0, 0]
    assert (at(run.items), [item.status for item in run.items]) == ([0, 1], [SUCCEEDED, FAILED])
    assert (run.steps[0].items.total, run.steps[0].items.succeeded, run.steps[0].items.failed) == (5, 1, 1)


async def test_items_may_fail_one_by_one(tasks: FakeTasks, working: Working) -> None:
    items = [{"name": new_id(), "failures": index % 2} for index in range(4)]
    step = each(items, {"name": "${item.name}", "failures": "${item.failures}"}, "mis.flaky", on_error="continue")
    run = await ended(tasks, working, step, {"uses": "echo.test", "with": {"n": "${steps.all[?error].error.class}"}})
    assert run.ending == "succeeded"
    assert [type(output) for output in run.output["all"]] == [int, dict, int, dict]
    assert run.output["all"][1]["error"]["class"] == "tool"
    assert run.step_output("step_2") == {"n": ["tool", "tool"]}
    assert run.steps[0].status == FAILED
    assert run.steps[0].error.message.startswith("2 of 4 items failed; the first, item 1: Error")


async def test_only_the_items_that_failed_are_tried_again(tasks: FakeTasks, working: Working) -> None:
    items = [{"name": new_id(), "failures": failures} for failures in (0, 2, 0, 1)]
    with_ = {"name": "${item.name}", "failures": "${item.failures}"}
    run = await ended(tasks, working, each(items, with_, "mis.flaky", retry={"max": 3, "backoff": "fixed"}))
    assert run.output["all"] == [1, 3, 1, 2]
    assert [flaky_calls[item["name"]] for item in items] == [1, 3, 1, 2]
    assert len(run.deferred) == 2


async def test_an_item_whose_retries_are_used_up_fails_the_run_for_good(tasks: FakeTasks, working: Working) -> None:
    items = [{"name": new_id(), "failures": failures} for failures in (0, 9)]
    with_ = {"name": "${item.name}", "failures": "${item.failures}"}
    run = await ended(tasks, working, each(items, with_, "mis.flaky", retry={"max": 1, "backoff": "fixed"}))
    assert (run.outcome.failed.final, [flaky_calls[item["name"]] for item in items]) == (True, [1, 2])


async def test_another_worker_does_only_the_items_that_are_left(tasks: FakeTasks, working: Working) -> None:
    items = [{"name": new_id(), "seconds": seconds} for seconds in (0, 0, 0, 30, 0)]
    step = each(items, {"seconds": "${item.seconds}"}, "mis.slow")
    async with working(grace_seconds=0):
        run = await tasks.enqueue(step)
        await await_until(lambda: len(run.items) == 3)
    assert at(run.items) == [0, 1, 2]
    run.payload["pipeline"][0]["foreach"]["items"][3]["seconds"] = 0
    async with working():
        await tasks.ended(run)
    assert at(run.items) == [0, 1, 2, 3, 4]
    assert run.output["all"] == [{"result": "done"}] * 5


async def test_each_item_has_a_key_of_its_own(tasks: FakeTasks, working: Working) -> None:
    run = await ended(tasks, working, each(["a", "b"], {}, "mis.key", id="send"))
    assert run.output["all"] == [f"{run.id}:send:0", f"{run.id}:send:1"]


async def test_a_run_that_is_called_off_begins_no_more_items(tasks: FakeTasks, working: Working) -> None:
    step = each(list(range(50)), {"seconds": 0.02}, "mis.slow")
    async with working():
        run = await tasks.enqueue(step)
        await await_until(lambda: len(run.items) >= 2)
        run.cancel_requested = True
        await tasks.ended(run)
    assert run.ending == "canceled"
    assert 2 <= len(run.items) < 50


async def test_a_large_output_is_a_file(tasks: FakeTasks, working: Working) -> None:
    run = await ended(
        tasks,
        working,
        {"uses": "mis.big", "with": {"size": 100_000}, "save_as": "text"},
        {"uses": "echo.test", "with": {"length": "${length(steps.text)}"}, "save_as": "length"},
    )
    record = run.steps[0]
    assert (record.HasField("output"), record.output_uri[:7]) == (False, "/files/")
    assert orjson.loads(tasks.files[record.output_uri[7:]]) == "x" * 100_000
    assert run.step_output("step_2") == {"length": 100_000}
    kept = orjson.loads(tasks.files[run.outcome.outputs_uri[7:]])
    assert (run.output, kept["length"], len(kept["text"])) == ({}, {"length": 100_000}, 100_000)


async def test_saved_outputs_are_in_their_records_up_to_64_kib_in_all(tasks: FakeTasks, working: Working) -> None:
    big = {"uses": "mis.big", "with": {"size": 40_000}}
    run = await ended(tasks, working, {**big, "save_as": "a"}, big, {**big, "save_as": "b"})
    assert [bool(step.output_uri) for step in run.steps] == [False, False, True]


async def test_another_worker_finds_large_outputs_again(tasks: FakeTasks, working: Working) -> None:
    steps = (
        {"uses": "mis.big", "with": {"size": 100_000}, "save_as": "text"},
        {"uses": "mis.slow", "with": {"seconds": 30}},
    )
    async with working(grace_seconds=0):
        run = await tasks.enqueue(*steps)
        await await_until(lambda: slow_calls.now == 1)
    run.payload["pipeline"][1] = {"uses": "echo.test", "with": {"n": "${length(steps.text)}"}}
    async with working():
        await tasks.ended(run)
    assert run.step_output("step_2") == {"n": 100_000}


async def test_a_service_that_is_away_is_waited_for_before_an_output_is_lost(
    tasks: FakeTasks, working: Working
) -> None:
    name = new_id()
    tasks.fail("PutFile", 2)
    tasks.fail("ListItems", 2)
    big = {"uses": "mis.big", "with": {"size": 100_000}}
    run = await ended(tasks, working, big, each([name], {"name": "${item}", "failures": 0}, "mis.flaky"))
    assert (run.ending, flaky_calls[name]) == ("succeeded", 1)
    assert (tasks.failed["PutFile"], tasks.failed["ListItems"]) == (2, 2)


async def test_an_output_that_can_never_be_kept_fails_its_run(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("PutFile", 99, grpc.StatusCode.PERMISSION_DENIED)
    run = await ended(tasks, working, {"uses": "mis.big", "with": {"size": 100_000}})
    assert (error_class(run.error), run.ending) == ("internal", "failed")


async def test_every_attempt_sees_the_same_now(tasks: FakeTasks, working: Working) -> None:
    run = await ended(
        tasks,
        working,
        {"uses": "echo.test", "with": {"now": "${now}"}, "save_as": "first"},
        flaky(1, retry={"max": 1, "backoff": "fixed"}),
        {"uses": "echo.test", "with": {"now": "${now}"}, "save_as": "last"},
    )
    assert run.attempt == 2
    assert run.output["first"] == run.output["last"]


async def test_many_items_are_reported_in_batches(tasks: FakeTasks, working: Working) -> None:
    step = each(list(range(300)), {"n": "${item}"}, foreach={"parallel": 50})
    del step["save_as"]
    async with asyncio.timeout(20):
        run = await ended(tasks, working, step)
    assert sorted(at(run.items)) == list(range(300))
    assert len(tasks.batches) < 100

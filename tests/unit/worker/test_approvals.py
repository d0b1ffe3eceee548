"""Steps that somebody must approve, as the worker does them."""

from typing import Any

import grpc
import pytest
from baton.tasks.v1 import approval_pb2

from services.chassis import structs
from services.chassis.ids import new_id
from services.pipeline import canonical
from tests.support.fake_tasks import FakeRun, FakeTasks
from tests.support.mcp_servers import flaky_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working
from tests.unit.worker.test_worker import FAILED, SUCCEEDED, error_class

pytestmark = pytest.mark.usefixtures("http_server")

APPROVED = approval_pb2.APPROVAL_STATUS_APPROVED
REJECTED = approval_pb2.APPROVAL_STATUS_REJECTED
EXPIRED = approval_pb2.APPROVAL_STATUS_EXPIRED


def gated(name: str, failures: int = 0, **step: Any) -> dict[str, Any]:
    call = {"uses": "mis.flaky", "with": {"name": "${params.name}", "failures": failures}}
    return {"id": "pay", **call, "approval": {"role": "treasurer", "expires_seconds": 60}, **step}


async def asked(tasks: FakeTasks, *steps: dict[str, Any], **params: Any) -> FakeRun:
    """A run that has come as far as its question."""
    run = await tasks.enqueue(*steps, params=params)
    await await_until(lambda: bool(run.asked))
    return run


async def test_a_step_is_shown_before_it_is_begun_and_the_run_let_go(tasks: FakeTasks, working: Working) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, {"uses": "echo.test", "save_as": "first"}, gated(name), name=name)
        (question,) = run.asked
        action = {"tool": "mis.flaky", "arguments": {"name": name, "failures": 0}}
        assert structs.from_struct(question.action) == action
        assert question.action_digest == canonical.digest(action)
        assert (question.step_id, question.approver_role, question.expires_seconds) == ("pay", "treasurer", 60)
        assert (flaky_calls[name], run.held, [step.id for step in run.steps]) == (0, False, ["step_1"])
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (run.ending, flaky_calls[name], len(run.asked)) == ("succeeded", 1, 1)
    assert run.used == [run.approvals[0].id]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (REJECTED, "agent somebody rejected this step: too dear"),
        (EXPIRED, "this step was not approved: too dear"),
    ],
)
async def test_a_no_fails_the_step(tasks: FakeTasks, working: Working, status: Any, message: str) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, gated(name, retry={"max": 5}), name=name)
        await tasks.answer(run, status, "too dear")
        await tasks.ended(run)
    assert (error_class(run.error), run.error.message, run.error.retryable) == ("approval_rejected", message, False)
    assert (flaky_calls[name], [step.status for step in run.steps]) == (0, [FAILED])


async def test_a_run_may_go_on_without_a_step_that_was_rejected(tasks: FakeTasks, working: Working) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, gated(name, on_error="continue", save_as="paid"), {"uses": "echo.test"}, name=name)
        await tasks.answer(run, REJECTED)
        await tasks.ended(run)
    assert (run.ending, flaky_calls[name]) == ("succeeded", 0)
    assert run.output["paid"]["error"]["class"] == "approval_rejected"


async def test_an_approval_is_for_just_what_was_shown(tasks: FakeTasks, working: Working) -> None:
    name, other = new_id(), new_id()
    async with working():
        run = await asked(tasks, gated(name), name=name)
        run.payload["params"]["name"] = other
        await tasks.answer(run, APPROVED)
        await await_until(lambda: len(run.asked) == 2)
        assert (flaky_calls[name], flaky_calls[other], run.used) == (0, 0, [])
        assert structs.from_struct(run.asked[1].action)["arguments"]["name"] == other
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (flaky_calls[name], flaky_calls[other]) == (0, 1)


async def test_nothing_is_done_that_the_service_does_not_confirm(tasks: FakeTasks, working: Working) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, gated(name), name=name)
        tasks.fail("UseApproval", 1, grpc.StatusCode.FAILED_PRECONDITION)
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (error_class(run.error), flaky_calls[name]) == ("approval_rejected", 0)


async def test_a_service_that_is_away_is_waited_for(tasks: FakeTasks, working: Working) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, gated(name), name=name)
        tasks.fail("UseApproval", 2)
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (run.ending, flaky_calls[name]) == ("succeeded", 1)


async def test_an_approval_is_good_for_the_retries_of_its_step(tasks: FakeTasks, working: Working) -> None:
    name = new_id()
    async with working():
        run = await asked(tasks, gated(name, failures=1, retry={"max": 1, "backoff": "fixed"}), name=name)
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (run.ending, flaky_calls[name], len(run.asked)) == ("succeeded", 2, 1)


async def test_items_are_approved_together(tasks: FakeTasks, working: Working) -> None:
    names = [new_id(), new_id()]
    step = gated("", **{"with": {"name": "${item}", "failures": 0}, "foreach": {"items": names}, "save_as": "all"})
    async with working():
        run = await asked(tasks, step)
        arguments = structs.from_struct(run.asked[0].action)["arguments"]
        assert arguments == [{"name": name, "failures": 0} for name in names]
        assert [flaky_calls[name] for name in names] == [0, 0]
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert (run.output["all"], len(run.used)) == ([1, 1], 1)


async def test_a_large_action_is_shown_as_a_file(tasks: FakeTasks, working: Working) -> None:
    step = {"uses": "mis.say", "with": {"text": "x" * 100_000}, "approval": {}}
    async with working():
        run = await asked(tasks, step)
        (question,) = run.asked
        assert (question.HasField("action"), question.action_uri[7:] in tasks.files) == (False, True)
        await tasks.answer(run, APPROVED)
        await tasks.ended(run)
    assert [step.status for step in run.steps] == [SUCCEEDED]


async def test_a_step_that_is_skipped_needs_no_approval(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue(gated("", **{"if": "params.go"}), params={"go": False, "name": ""}))
    assert (run.ending, run.asked) == ("succeeded", [])

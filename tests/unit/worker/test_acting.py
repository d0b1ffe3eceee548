"""Built-in tools that call Baton's own services, for the owner of the run, and what becomes of their refusals."""

import grpc
import pytest
from baton.tasks.v1 import run_pb2

from services.chassis import structs
from services.chassis.ids import new_id
from tests.support.fake_tasks import FakeTasks
from tests.unit.worker.conftest import Working

OWNER = new_id()
TELL = {"id": "tell", "uses": "events.publish", "with": {"topic": "order.paid", "payload": {"n": 7}}, "save_as": "told"}
_Class = run_pb2.ErrorClass


async def test_it_is_called_as_the_owner_in_the_course_of_the_run(tasks: FakeTasks, working: Working) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue(TELL, created_by=OWNER))
    ((authorization, request),) = tasks.published
    assert authorization == f"Bearer {OWNER} in {run.id}"
    assert (request.topic, structs.from_struct(request.payload)) == ("order.paid", {"n": 7})
    assert request.request_id == f"{run.id}:tell"
    assert run.output["told"]["triggered_tasks"] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, _Class.ERROR_CLASS_TOOL),
        (grpc.StatusCode.ABORTED, _Class.ERROR_CLASS_TOOL),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, _Class.ERROR_CLASS_TOOL),
        (grpc.StatusCode.DEADLINE_EXCEEDED, _Class.ERROR_CLASS_TOOL_TIMEOUT),
        (grpc.StatusCode.PERMISSION_DENIED, _Class.ERROR_CLASS_VALIDATION),
        (grpc.StatusCode.FAILED_PRECONDITION, _Class.ERROR_CLASS_VALIDATION),
    ],
)
@pytest.mark.parametrize("method", ["ActForAgent", "PublishEvent"])
async def test_only_what_may_pass_is_tried_again(
    tasks: FakeTasks, working: Working, method: str, code: grpc.StatusCode, expected: int
) -> None:
    tasks.fail(method, 1, code)
    async with working():
        run = await tasks.ended(await tasks.enqueue(TELL, created_by=OWNER))
    assert (run.ending, getattr(run.error, "class")) == ("failed", expected)
    assert run.error.message
    assert tasks.published == []

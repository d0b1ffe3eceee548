"""The records of items, deferred runs, and files, as the service keeps them."""

from datetime import UTC, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import file_service_pb2, file_service_pb2_grpc, run_pb2
from baton.tasks.v1.run_service_pb2 import CancelRunRequest, ListRunStepsRequest, ListStepItemsRequest, RetryRunRequest
from baton.tasks.v1.work_service_pb2 import (
    LeasedRun,
    ListItemsRequest,
    RunDeferred,
    RunFailed,
    RunReport,
    RunSucceeded,
)
from google.protobuf.duration_pb2 import Duration

from services.chassis import structs
from services.chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from services.tasks.operations import retention
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.work import failed_step, failure, step

PIPELINE = [
    {"id": "all", "uses": "echo.test", "foreach": {"items": [1, 2, 3]}, "save_as": "all"},
    {"uses": "echo.test"},
]


async def leased_run(tasks: Tasks, **fields: Any) -> LeasedRun:
    task = await tasks.create(payload=structs.to_struct({"pipeline": PIPELINE}), **fields)
    await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    return leased


def item(index: int, **changes: Any) -> run_pb2.RunStep:
    return step(0, id="all", item=index, tries=1, **changes)


async def items_of(tasks: Tasks, run_id: str, **request: Any) -> list[tuple[int, str, int]]:
    page = await tasks.runs.ListStepItems(ListStepItemsRequest(run_id=run_id, step_id="all", **request))
    return [
        (one.item, run_pb2.StepStatus.Name(one.status).removeprefix("STEP_STATUS_"), one.tries) for one in page.items
    ]


async def test_items_are_recorded_once_unless_they_failed(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.report(RunReport(lease=leased.lease, steps=[item(0), failed_step(0, id="all", item=1, tries=1)]))
    late = item(0, output=structs.to_value("other"))
    await tasks.report(RunReport(lease=leased.lease, steps=[late, item(1, output=structs.to_value("b"))]))
    run_id = leased.lease.run_id
    assert await items_of(tasks, run_id) == [(0, "SUCCEEDED", 1), (1, "SUCCEEDED", 1)]
    page = await tasks.runs.ListStepItems(ListStepItemsRequest(run_id=run_id, step_id="all"))
    assert page.items[0].output != structs.to_value("other")
    assert (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items == []


async def test_people_page_through_items_and_pick_some(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    records = [failed_step(0, id="all", item=index) if index % 2 else item(index) for index in range(5)]
    await tasks.report(RunReport(lease=leased.lease, steps=records))
    request = ListStepItemsRequest(run_id=leased.lease.run_id, step_id="all", limit=2)
    seen: list[int] = []
    while True:
        page = await tasks.runs.ListStepItems(request)
        seen += [one.item for one in page.items]
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert seen == [0, 1, 2, 3, 4]
    failed = await items_of(tasks, leased.lease.run_id, status=run_pb2.STEP_STATUS_FAILED)
    assert [index for index, *_ in failed] == [1, 3]


async def test_items_of_what_is_not_there(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    with pytest.raises(NotFound) as caught:
        await tasks.runs.ListStepItems(ListStepItemsRequest(run_id=leased.lease.run_id, step_id="other"))
    assert caught.value.reason == "STEP_NOT_FOUND"
    with pytest.raises(NotFound) as caught:
        await tasks.runs.ListStepItems(ListStepItemsRequest(run_id=leased.lease.token, step_id="all"))
    assert caught.value.reason == "RUN_NOT_FOUND"
    # Nothing is recorded of it yet, and by its place it has an id.
    assert await items_of(tasks, leased.lease.run_id) == []
    page = await tasks.runs.ListStepItems(ListStepItemsRequest(run_id=leased.lease.run_id, step_id="step_2"))
    assert page.items == []


async def test_a_worker_gets_the_items_of_a_run_that_it_holds(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.report(RunReport(lease=leased.lease, steps=[item(index) for index in range(3)]))
    request = ListItemsRequest(lease=leased.lease, after=0, with_output=True)
    answer = await tasks.work.ListItems(request)
    assert ([one.item for one in answer.items], answer.has_more) == ([1, 2], False)
    assert answer.items[0].HasField("output")
    request.with_output = False
    assert not (await tasks.work.ListItems(request)).items[0].HasField("output")


async def test_items_come_a_mebibyte_at_a_time(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    large = structs.to_value("x" * 60_000)
    for start in (0, 10):
        records = [item(index, output=large) for index in range(start, start + 10)]
        await tasks.report(RunReport(lease=leased.lease, steps=records))
    request, answers = ListItemsRequest(lease=leased.lease, with_output=True), []
    while not answers or answers[-1].has_more:
        answers.append(await tasks.work.ListItems(request))
        request.after = answers[-1].items[-1].item
    assert [one.item for answer in answers for one in answer.items] == list(range(20))
    assert max(answer.ByteSize() for answer in answers) < 1_100_000


async def test_nobody_else_gets_them(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.finish(leased.lease)
    with pytest.raises(FailedPrecondition) as caught:
        await tasks.work.ListItems(ListItemsRequest(lease=leased.lease))
    assert caught.value.reason == "LEASE_LOST"


async def test_a_repeated_run_has_the_items_that_are_done(tasks: Tasks) -> None:
    leased = await leased_run(tasks, max_retries=0)
    records = [item(0), failed_step(0, id="all", item=1), item(2), failed_step(0, id="all")]
    await tasks.report(RunReport(lease=leased.lease, steps=records, failed=RunFailed(error=failure())))
    again = await tasks.runs.RetryRun(RetryRunRequest(run_id=leased.lease.run_id))
    (anew,) = await tasks.lease()
    assert (anew.lease.run_id, list(anew.steps)) == (again.run.id, [])
    answer = await tasks.work.ListItems(ListItemsRequest(lease=anew.lease))
    assert [one.item for one in answer.items] == [0, 2]


async def test_a_step_says_what_became_of_its_items(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    counts = run_pb2.StepItems(total=3, succeeded=2, failed=1)
    record = failed_step(0, id="all", items=counts, output=structs.to_value([1, 2, {"error": {}}]), tries=2)
    await tasks.report(RunReport(lease=leased.lease, steps=[record]))
    (found,) = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=leased.lease.run_id))).items
    assert (found.items, found.tries, structs.from_value(found.output)) == (counts, 2, [1, 2, {"error": {}}])


async def test_a_deferred_run_waits_and_keeps_its_retries(tasks: Tasks) -> None:
    leased = await leased_run(tasks, concurrency_key="one")
    deferred = RunDeferred(error=failure("busy"), wait=Duration(seconds=90))
    report = RunReport(lease=leased.lease, steps=[failed_step(0, id="all", tries=2)], deferred=deferred)
    assert await tasks.report(report) == [True]
    run = await tasks.run(leased.lease.run_id)
    assert (run.status, run.retries, run.error.message) == (run_pb2.RUN_STATUS_QUEUED, 0, "busy")
    assert run.due_at.ToDatetime(UTC) == tasks.clock.now() + timedelta(seconds=90)
    assert await tasks.lease() == []
    tasks.clock.advance(seconds=90)
    (again,) = await tasks.lease()
    assert (again.lease.attempt, again.steps[0].tries) == (2, 2)
    assert again.started_at == leased.started_at


async def test_a_deferred_run_that_is_called_off_ends(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.runs.CancelRun(CancelRunRequest(run_id=leased.lease.run_id))
    await tasks.report(RunReport(lease=leased.lease, deferred=RunDeferred(error=failure())))
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_CANCELED


async def test_no_run_is_deferred_for_more_than_an_hour(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    deferred = RunDeferred(error=failure(), wait=Duration(seconds=3601))
    with pytest.raises(InvalidArgument):
        await tasks.report(RunReport(lease=leased.lease, deferred=deferred))


async def test_a_final_failure_is_not_tried_again(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    await tasks.report(RunReport(lease=leased.lease, failed=RunFailed(error=failure(), final=True)))
    assert (await tasks.run(leased.lease.run_id)).status == run_pb2.RUN_STATUS_FAILED


async def test_a_run_says_where_its_output_is(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    report = RunReport(lease=leased.lease, succeeded=RunSucceeded(), outputs_uri="/files/abc")
    await tasks.report(report)
    assert (await tasks.run(leased.lease.run_id)).outputs_uri == "/files/abc"


async def read(tasks: Tasks, uri: str) -> bytes:
    files = file_service_pb2_grpc.FileServiceStub(tasks.channel())
    request = file_service_pb2.GetFileRequest(digest=uri.removeprefix("/files/"))
    return b"".join([chunk.data async for chunk in files.GetFile(request)])


async def put(tasks: Tasks, content: bytes) -> str:
    files = file_service_pb2_grpc.FileServiceStub(tasks.channel())
    return str((await files.PutFile(file_service_pb2.PutFileRequest(content=content))).uri)


async def test_files_are_kept_by_their_content(tasks: Tasks) -> None:
    content = b'"' + b"x" * 1_000_000 + b'"'
    uri = await put(tasks, content)
    assert await put(tasks, content) == uri != await put(tasks, b"1")
    assert await read(tasks, uri) == content
    with pytest.raises(NotFound) as caught:
        await read(tasks, "/files/" + "0" * 64)
    assert caught.value.reason == "FILE_NOT_FOUND"
    with pytest.raises(InvalidArgument):
        await put(tasks, b"x" * (4 * 1024 * 1024 + 1))


async def test_files_go_with_what_they_belong_to(tasks: Tasks) -> None:
    leased = await leased_run(tasks)
    of_step, of_item, of_nobody = [await put(tasks, text) for text in (b"1", b"2", b"3")]
    records = [item(0, output_uri=of_item), step(0, id="all", output_uri=of_step)]
    for record in records:
        record.ClearField("output")
    await tasks.report(RunReport(lease=leased.lease, steps=records))
    tasks.clock.advance(days=3)
    again = await put(tasks, b"3")

    async def prune() -> bool:
        """Deletes one at most; answers whether there was one."""
        now = tasks.clock.now()
        pruned = await tasks.database.transact(
            lambda connection, clock: retention.prune_files(connection, now, 1, clock)
        )
        return not pruned.complete

    assert not await prune()
    tasks.clock.advance(days=2)
    assert await prune()
    with pytest.raises(NotFound):
        await read(tasks, again)
    assert (of_nobody, await read(tasks, of_step), await read(tasks, of_item)) == (again, b"1", b"2")

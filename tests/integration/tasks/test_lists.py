"""Paging and filtering tasks, runs and steps."""

from collections.abc import Awaitable, Callable
from itertools import chain
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2, task_pb2
from baton.tasks.v1.run_service_pb2 import GetRunRequest, ListRunsRequest, ListRunStepsRequest
from baton.tasks.v1.task_service_pb2 import ListTasksRequest
from baton.tasks.v1.work_service_pb2 import RunFailed, RunReport
from google.protobuf.message import Message
from sqlalchemy import insert

from services.chassis.errors import InvalidArgument, NotFound
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import pause
from tests.integration.tasks.past import fatal
from tests.integration.tasks.running import Tasks, one_engine
from tests.integration.tasks.work import step

CRON, ONCE, MANUAL = task_pb2.SCHEDULE_KIND_CRON, task_pb2.SCHEDULE_KIND_ONCE, task_pb2.SCHEDULE_KIND_MANUAL


async def add_tasks(tasks: Tasks, count: int) -> list[str]:
    """Stores many tasks like a first one that is created; answers their ids in order."""
    first = await tasks.create()

    def add(connection: Any, clock: Any) -> list[str]:
        row = connection.execute(tables.tasks.select().where(tables.tasks.c.id == first.id)).one()._asdict()
        rows = [row | {"id": new_id()} for _ in range(count - 1)]
        connection.execute(insert(tables.tasks), rows)
        return [first.id, *(row["id"] for row in rows)]

    return await tasks.database.transact(add)


async def pages(
    listing: Callable[[Message], Awaitable[Any]], request: Any, between: Callable[[], Awaitable[Any]] | None = None
) -> list[list[str]]:
    """The ids of each page of a list, from the first to the last; `between` happens after each."""
    found = []
    while True:
        answer = await listing(request)
        found.append([item.id for item in answer.items])
        assert answer.has_more == answer.HasField("next_cursor")
        if not answer.has_more:
            return found
        request.cursor = answer.next_cursor
        if between:
            await between()


async def test_every_task_is_on_one_page_while_new_ones_arrive(tasks: Tasks) -> None:
    ids = await add_tasks(tasks, 120)
    found = await pages(tasks.tasks.ListTasks, ListTasksRequest(), between=tasks.create)
    assert [len(page) for page in found] == [50, 50, 20]
    assert list(chain.from_iterable(found)) == ids[::-1]


async def test_every_run_is_on_one_page_while_runs_arrive_and_end(tasks: Tasks) -> None:
    task = await tasks.create()
    ids = await tasks.queue_runs(task.id, 125)
    for leased in (await tasks.lease(limit=60))[::2]:
        await tasks.finish(leased.lease)

    async def life_goes_on() -> None:
        await tasks.run_now(task.id)
        for leased in await tasks.lease(limit=20):
            await tasks.finish(leased.lease)

    found = await pages(tasks.runs.ListRuns, ListRunsRequest(limit=50), between=life_goes_on)
    # Live and finished ones in one order, newest first.
    assert [len(page) for page in found] == [50, 50, 25]
    assert list(chain.from_iterable(found)) == ids[::-1]


async def test_a_last_page_that_is_full_has_nothing_behind_it(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 10)
    assert [len(page) for page in await pages(tasks.runs.ListRuns, ListRunsRequest(limit=5))] == [5, 5]


async def test_empty_lists(tasks: Tasks) -> None:
    assert await pages(tasks.tasks.ListTasks, ListTasksRequest()) == [[]]
    assert await pages(tasks.runs.ListRuns, ListRunsRequest()) == [[]]


async def test_task_filters_are_or_within_and_and_across(tasks: Tasks) -> None:
    schedules = {CRON: "@daily", ONCE: "2030-01-01T00:00:00Z", MANUAL: ""}
    created = {
        (kind, paused): (await tasks.create(schedule_kind=kind, schedule_expr=expression)).id
        for kind, expression in schedules.items()
        for paused in (False, True)
    }
    for (_, is_paused), task_id in created.items():
        if is_paused:
            await pause(tasks, task_id)

    async def found(**filters: Any) -> set[tuple[int, bool]]:
        (page,) = await pages(tasks.tasks.ListTasks, ListTasksRequest(**filters))
        return {key for key, task_id in created.items() if task_id in page}

    active, both = [task_pb2.TASK_STATUS_ACTIVE], [task_pb2.TASK_STATUS_ACTIVE, task_pb2.TASK_STATUS_PAUSED]
    assert await found() == set(created)
    assert await found(schedule_kind=[CRON, ONCE]) == {(CRON, False), (CRON, True), (ONCE, False), (ONCE, True)}
    assert await found(status=active) == {(CRON, False), (ONCE, False), (MANUAL, False)}
    assert await found(status=active, schedule_kind=[CRON, MANUAL]) == {(CRON, False), (MANUAL, False)}
    assert await found(status=both) == set(created)
    assert await found(status=[task_pb2.TASK_STATUS_CANCELED]) == set()


async def test_run_filters_are_or_within_and_and_across(tasks: Tasks) -> None:
    first, second, other = [(await tasks.create()).id for _ in range(3)]
    for task_id in (first, second, other):
        await tasks.queue_runs(task_id, 4)
    leased = await tasks.lease(limit=12)
    by_task = {task_id: [run.lease for run in leased if run.task_id == task_id] for task_id in (first, second, other)}
    for running, succeeded, failed, released in by_task.values():
        assert await tasks.finish(succeeded)
        assert await tasks.report(RunReport(lease=failed, failed=RunFailed(error=fatal())))
        assert await tasks.report(RunReport(lease=released, released={}))
        assert running

    async def found(**filters: Any) -> set[tuple[str, str]]:
        answer = await tasks.runs.ListRuns(ListRunsRequest(**filters))
        return {(run.task_id, run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_")) for run in answer.items}

    all_of = {name: {(task_id, name) for task_id in by_task} for name in ("QUEUED", "RUNNING", "SUCCEEDED", "FAILED")}
    for name, expected in all_of.items():
        assert await found(status=[f"RUN_STATUS_{name}"]) == expected
    # Of live and finished runs at once.
    assert await found(status=["RUN_STATUS_RUNNING", "RUN_STATUS_FAILED"]) == all_of["RUNNING"] | all_of["FAILED"]
    assert await found(task_id=[first, second.upper()], status=["RUN_STATUS_QUEUED", "RUN_STATUS_SUCCEEDED"]) == {
        (task_id, name) for task_id in (first, second) for name in ("QUEUED", "SUCCEEDED")
    }
    assert await found(task_id=[new_id()]) == set()


@one_engine
@pytest.mark.parametrize("damage", ["other filters", "another list", "another run", "one letter", "not base64"])
async def test_a_cursor_fits_only_the_list_it_is_of(tasks: Tasks, damage: str) -> None:
    task = await tasks.create()
    await tasks.queue_runs(task.id, 3)
    cursor = (await tasks.runs.ListRuns(ListRunsRequest(limit=1))).next_cursor
    other = "A" if cursor[0] != "A" else "B"
    listing, request = {
        "other filters": (tasks.runs.ListRuns, ListRunsRequest(cursor=cursor, task_id=[task.id])),
        "another list": (tasks.tasks.ListTasks, ListTasksRequest(cursor=cursor)),
        "another run": (tasks.runs.ListRunSteps, ListRunStepsRequest(cursor=cursor, run_id=new_id())),
        "one letter": (tasks.runs.ListRuns, ListRunsRequest(cursor=other + cursor[1:])),
        "not base64": (tasks.runs.ListRuns, ListRunsRequest(cursor="%%%")),
    }[damage]
    with pytest.raises(InvalidArgument) as refused:
        await listing(request)
    assert refused.value.reason == "CURSOR_INVALID"
    assert [violation.field for violation in refused.value.violations] == ["cursor"]
    # With another limit it is the same list.
    assert len((await tasks.runs.ListRuns(ListRunsRequest(cursor=cursor, limit=200))).items) == 2


@one_engine
@pytest.mark.parametrize(
    ("fields", "field"),
    [({"limit": 0}, "limit"), ({"limit": 201}, "limit"), ({"status": [0]}, "status[0]"),
     ({"status": [1, 99]}, "status[1]"), ({"task_id": ["7"]}, "task_id[0]"), ({"cursor": "x" * 1025}, "cursor")],
)  # fmt: skip
async def test_a_bad_filter_is_named(tasks: Tasks, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.runs.ListRuns(ListRunsRequest(**fields))
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_list_is_of_summaries(tasks: Tasks) -> None:
    task = await tasks.create(payload={"pipeline": [], "params": {"a": 1}})
    run_id = await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease, b=2)
    (item,) = (await tasks.runs.ListRuns(ListRunsRequest())).items
    whole = await tasks.run(run_id)
    assert (whole.inputs["a"], whole.output["b"]) == (1, 2)
    whole.ClearField("inputs")
    whole.ClearField("output")
    assert item == whole


async def test_the_steps_of_a_run_are_paged_in_their_order(tasks: Tasks) -> None:
    task = await tasks.create()
    run_id = await tasks.run_now(task.id)
    (leased,) = await tasks.lease()
    steps = [step(position) for position in range(7)]
    assert await tasks.report(RunReport(lease=leased.lease, steps=steps[::-1])) == [True]
    found = await pages(tasks.runs.ListRunSteps, ListRunStepsRequest(run_id=run_id.upper(), limit=3))
    assert found == [["step_1", "step_2", "step_3"], ["step_4", "step_5", "step_6"], ["step_7"]]
    (first, *_) = (await tasks.runs.ListRunSteps(ListRunStepsRequest(run_id=run_id))).items
    assert first == steps[0]


async def test_unknown_runs(tasks: Tasks) -> None:
    run_id = new_id()
    for read, request in (
        (tasks.runs.GetRun, GetRunRequest(run_id=run_id)),
        (tasks.runs.ListRunSteps, ListRunStepsRequest(run_id=run_id)),
    ):
        with pytest.raises(NotFound, match=run_id) as refused:
            await read(request)
        assert refused.value.reason == "RUN_NOT_FOUND"
        assert refused.value.metadata == {"run_id": run_id}
    with pytest.raises(InvalidArgument) as invalid:
        await tasks.runs.GetRun(GetRunRequest(run_id="7"))
    assert [violation.field for violation in invalid.value.violations] == ["run_id"]

"""Many callers, and the scheduler, who change one task at once."""

import asyncio
import random
from collections import Counter
from datetime import timedelta
from typing import Any

from baton.tasks.v1 import run_pb2
from baton.tasks.v1 import task_service_pb2 as pb
from google.protobuf.message import Message
from sqlalchemy import select

from services.chassis.errors import FailedPrecondition
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import (
    ACTIVE,
    CANCELED,
    PAUSED,
    RAN,
    TEN_MINUTES,
    at,
    cancel,
    every_ten_minutes,
    occurrences,
    outcomes,
    pause,
    read,
    resume,
    runs_of,
    to_ten_minutes,
)
from tests.integration.tasks.running import Tasks

REFUSALS = {"TASK_NOT_ACTIVE", "TASK_CANCELED"}


def changes(task_id: str) -> list[tuple[str, Message]]:
    """Calls that cannot all be the first."""
    return [
        ("PauseTask", pb.PauseTaskRequest(task_id=task_id)),
        ("ResumeTask", pb.ResumeTaskRequest(task_id=task_id)),
        ("SnoozeTask", pb.SnoozeTaskRequest(task_id=task_id, delay_seconds=30)),
        ("UpdateTask", pb.UpdateTaskRequest(task_id=task_id, title="new", status=PAUSED)),
        ("UpdateTask", pb.UpdateTaskRequest(task_id=task_id, schedule_expr="*/5 * * * *", status=ACTIVE)),
        *(("RunTaskNow", pb.RunTaskNowRequest(task_id=task_id)) for _ in range(3)),
    ]


async def attempt(tasks: Tasks, method: str, request: Message) -> Any:
    """What is answered, or None for a refusal that the contract knows."""
    try:
        return await getattr(tasks.tasks, method)(request)
    except FailedPrecondition as refused:
        if refused.reason not in REFUSALS:
            raise
        return None


async def test_whatever_comes_first_nothing_outlives_a_cancel(tasks: Tasks) -> None:
    """Every round races all changes of one task, a cancel among them, and the scheduler."""
    for _ in range(6):
        to_ten_minutes(tasks)
        task = await every_ten_minutes(tasks)
        tasks.clock.advance(minutes=10)
        calls = [*changes(task.id), ("CancelTask", pb.CancelTaskRequest(task_id=task.id))]
        random.shuffle(calls)
        firing = asyncio.ensure_future(tasks.service.scheduler.step())
        answers = await asyncio.gather(*(attempt(tasks, *call) for call in calls))
        await firing
        started = {answer.details.run_id for answer in answers if isinstance(answer, pb.RunTaskNowResponse)}
        await has_ended(tasks, task.id, started)


async def has_ended(tasks: Tasks, task_id: str, started: set[str]) -> None:
    """The task is canceled, each of its times has one outcome, and nothing of it can still run."""
    task = await read(tasks, task_id)
    assert (task.status, task.HasField("next_fire_at"), task.HasField("paused_at")) == (CANCELED, False, False)
    judged = (await occurrences(tasks, task_id, limit=200)).items
    assert max(Counter(at(item.scheduled_for) for item in judged).values()) == 1
    fired = {item.run_id for item in judged if item.outcome == RAN}
    runs = await runs_of(tasks, task_id)
    assert {run.id for run in runs} == started | fired
    assert {run.status for run in runs} <= {run_pb2.RUN_STATUS_CANCELED}
    live = select(tables.runs.c.id).where(tables.runs.c.task_id == task_id)
    assert await tasks.database.read(lambda connection, clock: connection.execute(live).all()) == []


async def test_of_many_cancels_one_cancels(tasks: Tasks) -> None:
    nominal = to_ten_minutes(tasks) + TEN_MINUTES
    task = await every_ten_minutes(tasks)
    run_id = await tasks.run_now(task.id)
    answers = await asyncio.gather(*(cancel(tasks, task.id) for _ in range(8)))
    assert sorted((answer.old_status, answer.affected_work_items) for answer in answers) == [
        (ACTIVE, 1), *[(CANCELED, 0)] * 7,
    ]  # fmt: skip
    assert [time for time, _ in await outcomes(tasks, task.id)] == [nominal]
    assert [run.id for run in await runs_of(tasks, task.id)] == [run_id]


async def test_of_many_resumes_one_makes_up_for_what_passed(tasks: Tasks) -> None:
    to_ten_minutes(tasks)
    task = await every_ten_minutes(tasks)
    await pause(tasks, task.id)
    tasks.clock.advance(minutes=31)
    await asyncio.gather(*(resume(tasks, task.id) for _ in range(6)), tasks.service.scheduler.step())
    assert len(await outcomes(tasks, task.id)) <= 3
    (run,) = await runs_of(tasks, task.id)
    assert at(run.due_at) == tasks.clock.now() - timedelta(minutes=1)


async def test_two_changes_of_a_task_are_both_kept(tasks: Tasks) -> None:
    for _ in range(5):
        task = await every_ten_minutes(tasks)
        requests = [
            pb.UpdateTaskRequest(task_id=task.id, title="new"),
            pb.UpdateTaskRequest(task_id=task.id, description="new"),
            pb.UpdateTaskRequest(task_id=task.id, schedule_expr="@daily"),
            pb.UpdateTaskRequest(task_id=task.id, status=PAUSED),
            pb.UpdateTaskRequest(task_id=task.id, priority=1),
        ]
        await asyncio.gather(*(tasks.tasks.UpdateTask(request) for request in requests))
        changed = await read(tasks, task.id)
        assert (changed.title, changed.description, changed.priority) == ("new", "new", 1)
        assert (changed.schedule_expr, changed.status) == ("@daily", PAUSED)


async def test_a_task_that_is_being_paused_keeps_every_run_waiting(tasks: Tasks) -> None:
    for _ in range(5):
        task = await tasks.create()
        await asyncio.gather(
            *(attempt(tasks, "RunTaskNow", pb.RunTaskNowRequest(task_id=task.id)) for _ in range(6)),
            pause(tasks, task.id),
        )
        assert await tasks.lease(limit=10) == []
        await cancel(tasks, task.id)

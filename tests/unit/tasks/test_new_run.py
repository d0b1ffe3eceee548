"""The run that a task starts."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.tasks.models.task import ScheduleKind, Task, TaskStatus
from services.tasks.operations.task import new_run

AT = datetime(2026, 5, 12, tzinfo=UTC)


def task(title: str) -> Task:
    payload = {"pipeline": [], "params": {"a": 1}}
    return Task("t", title, "", ScheduleKind.MANUAL, "", "UTC", payload, 3, "agent", TaskStatus.ACTIVE, None, AT, AT)


@pytest.mark.parametrize(("title", "name"), [("é" * 64, "é" * 64), ("日" * 65, "日" * 64), ("a", "a")])
def test_a_run_bears_its_tasks_title_cut_to_64_characters(title: str, name: str) -> None:
    assert new_run(task(title), due_at=AT, traceparent="").task == name


def test_a_run_takes_over_what_the_task_says() -> None:
    run = new_run(task("title"), due_at=AT, traceparent="00-a")
    assert UUID(run.id).version == 7
    assert (run.task_id, run.priority, run.created_by, run.due_at) == ("t", 3, "agent", AT)
    assert (run.payload, run.traceparent) == ({"pipeline": [], "params": {"a": 1}}, "00-a")

"""The run that a task starts."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from services.chassis.backoff import BackoffStrategy
from services.tasks.models.event import Trigger
from services.tasks.models.task import Misfire, Overlap, ScheduleKind, Task, TaskStatus
from services.tasks.operations.new_run import new_run, params_fault, parted

AT = datetime(2026, 5, 12, tzinfo=UTC)


def task(**changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "t", "title": "title", "description": "", "schedule_kind": ScheduleKind.MANUAL, "schedule_expr": "",
        "schedule_anchor": AT, "timezone": "UTC", "payload": {"pipeline": [], "params": {"a": 1}}, "priority": 3,
        "dedupe_key": "", "dedupe_window_seconds": 0, "max_retries": 2, "backoff_strategy": BackoffStrategy.LINEAR,
        "concurrency_key": "", "misfire": Misfire.SKIP, "overlap": Overlap.ALLOW, "role": "builder",
        "created_by": "agent", "status": TaskStatus.ACTIVE, "paused_at": None, "next_fire_at": None,
        "next_scheduled_for": None, "created_at": AT, "updated_at": AT,
    }  # fmt: skip
    return Task(**fields | changes)


@pytest.mark.parametrize(("title", "name"), [("é" * 64, "é" * 64), ("日" * 65, "日" * 64), ("a", "a")])
def test_a_run_bears_its_tasks_title_cut_to_64_characters(title: str, name: str) -> None:
    assert new_run(task(title=title), due_at=AT, traceparent="").task == name


def test_a_run_takes_over_what_the_task_says() -> None:
    run = new_run(task(), due_at=AT, traceparent="00-a")
    assert UUID(run.id).version == 7
    assert (run.task_id, run.priority, run.created_by, run.due_at) == ("t", 3, "agent", AT)
    assert (run.payload, run.traceparent) == ({"pipeline": [], "params": {"a": 1}}, "00-a")
    assert (run.role, run.max_retries, run.backoff_strategy) == ("builder", 2, BackoffStrategy.LINEAR)
    assert (run.batch_id, run.retry_of) == ("", None)


def test_a_run_can_be_given_what_is_its_own() -> None:
    owner = task()
    run = new_run(owner, due_at=AT, traceparent="", params={"a": 2, "b": None}, priority=1, batch_id="nightly")
    assert (run.payload["params"], run.priority, run.batch_id) == ({"a": 2, "b": None}, 1, "nightly")
    assert owner.payload == {"pipeline": [], "params": {"a": 1}}


def test_a_run_keeps_its_event_and_the_task_does_not() -> None:
    owner, event = task(), Trigger("e", "order.created", {"total": 3}, 2)
    run = new_run(owner, due_at=AT, traceparent="", trigger=event)
    assert (run.event_id, run.event_depth) == ("e", 2)
    assert parted(run.payload) == (owner.payload, {"topic": "order.created", "payload": {"total": 3}})
    assert parted(owner.payload) == (owner.payload, None)


@pytest.mark.parametrize(
    ("overlap", "key", "expected"),
    [
        (Overlap.ALLOW, "", ""),
        (Overlap.SKIP, "printer", "printer"),
        (Overlap.QUEUE, "printer", "printer"),
        (Overlap.QUEUE, "", "task/t"),
    ],
)
def test_runs_that_shall_not_overlap_have_a_key(overlap: Overlap, key: str, expected: str) -> None:
    run = new_run(task(overlap=overlap, concurrency_key=key), due_at=AT, traceparent="")
    assert run.concurrency_key == expected


def test_parameters_are_judged_with_the_payload_that_they_are_put_into() -> None:
    large = task(payload={"pipeline": [], "params": {"a": "x" * 600_000}})
    assert params_fault(large, {}) is None
    assert params_fault(large, {"a": "y" * 600_000}) is None
    fault = params_fault(large, {"b": "y" * 600_000}, "runs[3].params")
    assert fault is not None
    assert (fault.field, fault.description[:16]) == ("runs[3].params", "make the payload")

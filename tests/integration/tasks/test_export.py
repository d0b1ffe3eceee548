"""Runs as CSV."""

import csv
import io
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ExportRunsRequest
from baton.tasks.v1.work_service_pb2 import RunFailed, RunReport
from sqlalchemy import Connection, insert

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.integration.tasks.running import NO_TRACE, Tasks, one_engine
from tests.integration.tasks.work import failure

COLUMNS = [
    "id", "task_id", "task", "status", "priority", "attempt", "due_at", "started_at", "finished_at", "duration_ms",
    "error_class", "error_message", "trace_id", "created_at",
]  # fmt: skip
AT = datetime(2026, 5, 12, 10, 15, 30, 120000, tzinfo=UTC)
AWKWARD = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1", "=", 'say "hi"', "a,b", "two\nlines", "two\r\nlines", "cr\rcr",
    "Chișinău 🎉", "", " ", "\\.", "a'b", ";|", "NULL", "\\N",
]  # fmt: skip


async def export(tasks: Tasks, **fields: Any) -> bytes:
    chunks = [chunk async for chunk in tasks.runs.ExportRuns(ExportRunsRequest(**fields))]
    assert {chunk.content_type for chunk in chunks} == {"text/csv; charset=utf-8"}
    return b"".join(chunk.data for chunk in chunks)


def parsed(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def history_row(task: str, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": new_id(), "task_id": new_id(), "task": task, "priority": 5, "due_at": AT, "started_at": AT, "attempt": 1,
        "payload": {"pipeline": []}, "traceparent": NO_TRACE, "created_by": new_id(), "created_at": AT,
        "updated_at": AT, "status": "succeeded", "finished_at": AT, "duration_ms": 0, "output": None, "error": None,
    }  # fmt: skip
    return fields | changes


async def add_history(tasks: Tasks, rows: list[dict[str, Any]]) -> None:
    def add(connection: Connection, clock: Clock) -> None:
        connection.execute(insert(tables.run_history), rows)

    await tasks.database.transact(add)


async def test_a_run_is_a_row(tasks: Tasks) -> None:
    task = await tasks.create(title="briefing", priority=2)
    tasks.clock.advance(microseconds=1)
    ended, live = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease()
    tasks.clock.advance(seconds=1.5)
    await tasks.report(RunReport(lease=leased.lease, failed=RunFailed(error=failure("broken"))))
    finished_at, queued_at = _text(tasks.clock.now()), _text(tasks.clock.now() - timedelta(seconds=1.5))
    trace_id = NO_TRACE[3:35]
    assert parsed(await export(tasks)) == [
        COLUMNS,
        [live, task.id, "briefing", "queued", "2", "0", queued_at, "", "", "", "", "", trace_id, queued_at],
        [ended, task.id, "briefing", "failed", "2", "1", queued_at, queued_at, finished_at, "1500", "tool", "broken",
         trace_id, queued_at],
    ]  # fmt: skip


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_without_runs_there_is_a_header(tasks: Tasks) -> None:
    assert await export(tasks) == (",".join(COLUMNS) + "\r\n").encode()


async def test_columns_are_chosen_in_their_order(tasks: Tasks) -> None:
    await add_history(tasks, [history_row("a", priority=7)])
    assert await export(tasks, columns=["status", "priority", "task"]) == b"status,priority,task\r\nsucceeded,7,a\r\n"


@one_engine
async def test_unknown_columns_are_named(tasks: Tasks) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await export(tasks, columns=["id", "payload", "task", "secret"])
    assert [violation.field for violation in refused.value.violations] == ["columns[1]", "columns[3]"]
    assert "'payload' is not a column" in refused.value.violations[0].description
    for fields, field in (
        ({"columns": ["id", "id"]}, "columns"),
        ({"limit": 0}, "limit"),
        ({"status": [0]}, "status[0]"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await export(tasks, **fields)
        assert [violation.field for violation in refused.value.violations] == [field]


async def test_filters_are_those_of_the_list(tasks: Tasks) -> None:
    first, second = await tasks.create(), await tasks.create()
    for task in (first, second):
        await tasks.queue_runs(task.id, 3)
    one, *_ = [run for run in await tasks.lease(limit=2) if run.task_id == first.id]
    await tasks.finish(one.lease)

    async def found(**filters: Any) -> list[list[str]]:
        return parsed(await export(tasks, columns=["task_id", "status"], **filters))[1:]

    assert await found(task_id=[first.id.upper()]) == [
        [first.id, "queued"], [first.id, "running"], [first.id, "succeeded"],
    ]  # fmt: skip
    assert await found(status=[run_pb2.RUN_STATUS_RUNNING, run_pb2.RUN_STATUS_SUCCEEDED]) == [
        [first.id, "running"], [first.id, "succeeded"],
    ]  # fmt: skip
    assert await found(status=[run_pb2.RUN_STATUS_QUEUED], task_id=[second.id], limit=2) == [[second.id, "queued"]] * 2
    assert len(await found()) == 6


async def test_newest_first_and_cut_to_the_limit(tasks: Tasks) -> None:
    task = await tasks.create()
    ids = await tasks.queue_runs(task.id, 20)
    for leased in await tasks.lease(limit=9):
        await tasks.finish(leased.lease)
    for limit in (1, 7, 20, 100):
        assert await export(tasks, columns=["id"], limit=limit) == "\r\n".join(["id", *ids[::-1][:limit], ""]).encode()


async def test_any_text_comes_back_as_it_was_but_for_formulas(tasks: Tasks) -> None:
    rows = [
        history_row(text, status="failed", error={"class": "tool", "message": text, "retryable": False, "step_id": ""})
        for text in AWKWARD
    ]
    await add_history(tasks, rows)
    guarded = [f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text for text in AWKWARD]
    table = parsed(await export(tasks, columns=["task", "error_message"]))
    assert table == [["task", "error_message"], *([text, text] for text in guarded[::-1])]
    # A column on its own loses no row, not even an empty one.
    assert parsed(await export(tasks, columns=["error_message"]))[1:] == [[text] for text in guarded[::-1]]


async def test_lines_end_as_rfc_4180_says(tasks: Tasks) -> None:
    await add_history(tasks, [history_row("a,b"), history_row('say "hi"'), history_row("two\nlines")])
    assert await export(tasks, columns=["task", "attempt"]) == (
        b'task,attempt\r\n"two\nlines",1\r\n"say ""hi""",1\r\n"a,b",1\r\n'
    )


async def test_both_engines_write_the_same_bytes(tasks: Tasks, exports: dict[str, bytes]) -> None:
    numbers = [f"00000000-0000-7000-8000-{number:012}" for number in range(60)]
    rows = [
        history_row(
            AWKWARD[index % len(AWKWARD)], id=number, task_id=numbers[0], status="failed" if index % 3 else "succeeded",
            duration_ms=None if index % 5 else index, started_at=None if index % 4 else AT,
            error={"class": "tool", "message": AWKWARD[-index % len(AWKWARD)], "retryable": True, "step_id": "a"}
            if index % 3 else None,
        )
        for index, number in enumerate(numbers)
    ]  # fmt: skip
    await add_history(tasks, rows)
    engine = tasks.settings.database_url.partition(":")[0]
    exports[engine] = await export(tasks)
    assert len(set(exports.values())) == 1
    assert len(parsed(exports[engine])) == 61


@pytest.fixture(scope="module")
def exports() -> dict[str, bytes]:
    """What each engine wrote of the same rows, as far as it has had its turn."""
    return {}


async def test_very_many_rows_take_no_more_memory_than_a_few(tasks: Tasks) -> None:
    """20 000 rows are some 5 MB of CSV; what is held of them at any moment is a chunk or two."""
    message = {"class": "tool", "message": "x" * 230, "retryable": False, "step_id": ""}
    await add_history(tasks, [history_row("t", status="failed", error=message) for _ in range(20_000)])

    async def chunks() -> AsyncIterator[bytes]:
        # Two columns, for traced memory is slow.
        async for chunk in tasks.runs.ExportRuns(ExportRunsRequest(columns=["id", "error_message"])):
            yield chunk.data

    size = lines = count = 0
    tracemalloc.start()
    try:
        async for chunk in chunks():
            size, lines, count = size + len(chunk), lines + chunk.count(b"\r\n"), count + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lines == 20_001
    assert size > 5_000_000
    assert count > 50
    assert peak < 3_000_000

"""Runs as files."""

import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ExportRunsAsNdjsonRequest, ExportRunsRequest
from baton.tasks.v1.work_service_pb2 import RunFailed, RunReport

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.gateway.transcode.printer import Printers
from tests.integration.tasks.past import AT, add_past_runs, fatal, past_run
from tests.integration.tasks.running import NO_TRACE, Tasks, one_engine

COLUMNS = [
    "id", "task_id", "task", "status", "priority", "attempt", "due_at", "started_at", "finished_at", "duration_ms",
    "error_class", "error_message", "trace_id", "created_at",
]  # fmt: skip
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


async def test_a_run_is_a_row(tasks: Tasks) -> None:
    task = await tasks.create(title="briefing", priority=2)
    tasks.clock.advance(microseconds=1)
    ended, live = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease()
    tasks.clock.advance(seconds=1.5)
    await tasks.report(RunReport(lease=leased.lease, failed=RunFailed(error=fatal("broken"))))
    finished_at, queued_at = _text(tasks.clock.now()), _text(tasks.clock.now() - timedelta(seconds=1.5))
    trace_id = NO_TRACE[3:35]
    assert parsed(await export(tasks)) == [
        COLUMNS,
        [live, task.id, "briefing", "queued", "2", "0", queued_at, "", "", "", "", "", trace_id, queued_at],
        [ended, task.id, "briefing", "failed", "2", "1", queued_at, queued_at, finished_at, "1500", "validation",
         "broken", trace_id, queued_at],
    ]  # fmt: skip


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_without_runs_there_is_a_header(tasks: Tasks) -> None:
    assert await export(tasks) == (",".join(COLUMNS) + "\r\n").encode()


async def test_columns_are_chosen_in_their_order(tasks: Tasks) -> None:
    await add_past_runs(tasks, [past_run("a", priority=7)])
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
        past_run(text, status="failed", error={"class": "tool", "message": text, "retryable": False, "step_id": ""})
        for text in AWKWARD
    ]
    await add_past_runs(tasks, rows)
    guarded = [f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text for text in AWKWARD]
    table = parsed(await export(tasks, columns=["task", "error_message"]))
    assert table == [["task", "error_message"], *([text, text] for text in guarded[::-1])]
    # A column on its own loses no row, not even an empty one.
    assert parsed(await export(tasks, columns=["error_message"]))[1:] == [[text] for text in guarded[::-1]]


async def test_lines_end_as_rfc_4180_says(tasks: Tasks) -> None:
    await add_past_runs(tasks, [past_run("a,b"), past_run('say "hi"'), past_run("two\nlines")])
    assert await export(tasks, columns=["task", "attempt"]) == (
        b'task,attempt\r\n"two\nlines",1\r\n"say ""hi""",1\r\n"a,b",1\r\n'
    )


async def test_both_engines_write_the_same_bytes(tasks: Tasks, exports: dict[str, bytes]) -> None:
    numbers = [f"00000000-0000-7000-8000-{number:012}" for number in range(60)]
    rows = [
        past_run(
            AWKWARD[index % len(AWKWARD)], id=number, task_id=numbers[0], status="failed" if index % 3 else "succeeded",
            duration_ms=None if index % 5 else index, started_at=None if index % 4 else AT,
            error={"class": "tool", "message": AWKWARD[-index % len(AWKWARD)], "retryable": True, "step_id": "a"}
            if index % 3 else None,
        )
        for index, number in enumerate(numbers)
    ]  # fmt: skip
    await add_past_runs(tasks, rows)
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
    await add_past_runs(tasks, [past_run("t", outputs_uri="x" * 230) for _ in range(20_000)])

    async def chunks() -> AsyncIterator[bytes]:
        # Two columns, for traced memory is slow.
        async for chunk in tasks.runs.ExportRuns(ExportRunsRequest(columns=["id", "outputs_uri"])):
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


async def ndjson(tasks: Tasks, **fields: Any) -> list[dict[str, Any]]:
    chunks = [chunk async for chunk in tasks.runs.ExportRunsAsNdjson(ExportRunsAsNdjsonRequest(**fields))]
    assert {chunk.content_type for chunk in chunks} == {"application/x-ndjson; charset=utf-8"}
    return [json.loads(line) for line in b"".join(chunk.data for chunk in chunks).splitlines()]


async def test_lines_of_json_are_the_runs_as_rest_writes_them(tasks: Tasks) -> None:
    task = await tasks.create(title="briefing")
    await tasks.queue_runs(task.id, 3, batch_id="b")
    one, other, _ = await tasks.lease(limit=3)
    await tasks.finish(one.lease, answer=1)
    await tasks.report(RunReport(lease=other.lease, failed=RunFailed(error=fatal("no\nuse"))))
    await add_past_runs(tasks, [past_run(reported=True, task_id=None, approval_state="approved", approver="ann")])
    lines = {line["id"]: line for line in await ndjson(tasks)}
    to_json = Printers().of(run_pb2.Run.DESCRIPTOR)
    for run_id, line in lines.items():
        expected = to_json(await tasks.run(run_id))
        assert line == {name: value for name, value in expected.items() if name not in ("inputs", "output")}
    assert len(lines) == 4
    assert list(lines) == sorted(lines, reverse=True)


async def test_lines_of_json_pass_the_same_filters(tasks: Tasks) -> None:
    ids = await add_past_runs(tasks, [past_run(f"name {number % 2}", role="r" * number) for number in range(4)])
    assert [line["id"] for line in await ndjson(tasks, task=["name 1"])] == [ids[3], ids[1]]
    assert [line["id"] for line in await ndjson(tasks, role=["rr"], success=True)] == [ids[2]]
    assert [line["id"] for line in await ndjson(tasks, limit=2)] == ids[:1:-1]
    assert await ndjson(tasks, success=False) == []


async def test_every_column_can_be_asked_for(tasks: Tasks) -> None:
    others = ["batch_id", "role", "agent_id", "created_by", "retry_of", "retries", "outputs_uri", "log_excerpt",
              "approval_state", "approver", "updated_at"]  # fmt: skip
    agent, owner, earlier = new_id(), new_id(), new_id()
    row = past_run(
        batch_id="b", role="r", agent_id=agent, created_by=owner, retry_of=earlier, retries=2, outputs_uri="file:///x",
        log_excerpt="=done", approval_state="approved", approver="ann",
    )  # fmt: skip
    await add_past_runs(tasks, [row])
    assert parsed(await export(tasks, columns=others)) == [
        others, ["b", "r", agent, owner, earlier, "2", "file:///x", "'=done", "approved", "ann", _text(AT)],
    ]  # fmt: skip
    assert len(parsed(await export(tasks, columns=[*COLUMNS, *others]))[1]) == 25

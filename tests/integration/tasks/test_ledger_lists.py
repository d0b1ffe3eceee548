"""Reading the run ledger: pages, the earlier list, the download."""

import base64
import csv
import io
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from baton.tasks.v1.ledger_service_pb2 import PageLedgerRunsRequest
from sqlalchemy import Connection, insert, select

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, PermissionDenied
from services.chassis.ids import id_at
from services.chassis.structs import from_struct
from services.tasks.models.ledger import ReportedRun, settled
from services.tasks.models.run import RunStatus
from services.tasks.store import ledger as store
from services.tasks.store import tables
from tests.integration.tasks.reporting import AWAITING, FAILED, QUEUED, RUNNING, SUCCEEDED, Somebody, reporter
from tests.integration.tasks.running import NO_TRACE, Tasks, one_engine

DAY = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = [
    "id", "task", "run_id", "status", "started_at", "finished_at", "duration_ms", "outputs_uri", "log_excerpt",
]  # fmt: skip


@pytest.fixture
def script(tasks: Tasks) -> Somebody:
    return reporter(tasks)


async def add_runs(tasks: Tasks, starts: list[datetime]) -> list[str]:
    """Reports runs in one transaction; answers their ids. Every third has succeeded."""
    agent = "00000000-0000-7000-8000-00000000000a"
    kinds = (RunStatus.RUNNING, RunStatus.SUCCEEDED, RunStatus.AWAITING_APPROVAL)
    new = [settled(ReportedRun(id_at(at), agent, kinds[number % 3], at), at) for number, at in enumerate(starts)]

    def add(connection: Connection, clock: Clock) -> None:
        for run in new[:3]:
            named: dict[str, Any] = {"task": "t", "batch_id": "b", "inputs": {}, "traceparent": NO_TRACE}
            store.add_run(connection, run, **named, now=run.started_at)
        for kind, table in enumerate((tables.runs, tables.run_history, tables.runs)):
            first = connection.execute(select(table).where(table.c.id == new[kind].id)).one()._asdict()
            more = [first | {"id": run.id, "started_at": run.started_at} for run in new[3 + kind :: 3]]
            if more:
                connection.execute(insert(table), more)

    await tasks.database.transact(add)
    return [run.id for run in new]


@pytest.mark.parametrize("limit", [7, 50])
async def test_a_day_s_runs_are_paged_through_once(tasks: Tasks, script: Somebody, limit: int) -> None:
    """The earlier ledger showed the first page of a day for ever."""
    starts = [DAY + timedelta(minutes=number * 7) for number in range(120)]
    await add_runs(tasks, starts)
    pages = await script.pages(limit=limit)
    found = [run.started_at.ToDatetime(UTC) for run in chain.from_iterable(pages)]
    assert found == starts[::-1]
    assert {len(page) for page in pages[:-1]} == {limit}


async def test_runs_that_began_together_are_each_on_one_page(tasks: Tasks, script: Somebody) -> None:
    ids = await add_runs(tasks, [DAY] * 60)
    assert [run.id for run in chain.from_iterable(await script.pages(limit=7))] == sorted(ids, reverse=True)


async def test_microseconds_count(tasks: Tasks, script: Somebody) -> None:
    starts = [DAY + timedelta(microseconds=number) for number in (0, 1, 499, 500, 998, 999, 1000, 1001)]
    await add_runs(tasks, starts)
    assert [run.started_at.ToDatetime(UTC) for run in await script.listed()] == starts[::-1]
    for number, start in enumerate(starts):
        (page,) = await script.pages(since=start.isoformat())
        assert [run.started_at.ToDatetime(UTC) for run in page] == [*starts[:number:-1], start]
        assert (await script.csv(since=start.isoformat())).count("\r\n") == len(page) + 1


async def test_runs_that_are_reported_late_are_where_they_began(script: Somebody) -> None:
    for at in ("2026-03-01T12:00:00Z", "2025-01-01T00:00:00Z", "2026-03-01T12:00:00+01:00"):
        await script.report(started_at=at, status=QUEUED)
    (page,) = await script.pages()
    assert [run.started_at.ToJsonString() for run in page] == [
        "2026-03-01T12:00:00Z", "2026-03-01T11:00:00Z", "2025-01-01T00:00:00Z",
    ]  # fmt: skip


async def test_every_run_is_on_one_page_while_runs_end(tasks: Tasks, script: Somebody) -> None:
    runs = [await script.report(started_at=DAY + timedelta(hours=number)) for number in range(10)]
    first = await script.ledger.PageLedgerRuns(PageLedgerRunsRequest(limit=4))
    for run in runs[::2]:
        await script.patch(run.id, status=SUCCEEDED)
    rest = await script.ledger.PageLedgerRuns(PageLedgerRunsRequest(limit=10, cursor=first.next_cursor))
    assert [run.id for run in (*first.items, *rest.items)] == [run.id for run in runs[::-1]]


async def test_a_run_of_baton_s_own_is_in_the_ledger(tasks: Tasks, script: Somebody) -> None:
    task = await tasks.create(title="Backup", payload={"pipeline": [], "params": {"disk": "a"}})
    run_id = await tasks.run_now(task.id)
    (waiting,) = await script.listed()
    assert (waiting.id, waiting.task, waiting.run_id, waiting.status) == (run_id, "Backup", "", QUEUED)
    assert not waiting.HasField("started_at")
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    ((done,),) = await script.pages(task=["Backup"], status=[SUCCEEDED])
    assert (done.id, done.status, from_struct(done.inputs)) == (run_id, SUCCEEDED, {"disk": "a"})


async def test_filters_are_or_within_a_field_and_and_across(script: Somebody) -> None:
    expected = {}
    for task in ("seo.validate", "code.review", "dx.integrate"):
        for status in (SUCCEEDED, FAILED, AWAITING, RUNNING):
            expected[task, status] = (await script.report(status, task=task)).id
    tasks, statuses = ["seo.validate", "dx.integrate"], [FAILED, AWAITING]
    (page,) = await script.pages(task=tasks, status=statuses)
    assert {run.id for run in page} == {expected[task, status] for task in tasks for status in statuses}
    (page,) = await script.pages(task=["code.review"])
    assert {run.task for run in page} == {"code.review"}
    assert await script.pages(task=["nobody"]) == [[]]


SINCE = {
    "1900-01-01": 3, "2026-03-01T00:00:00": 3, "2026-03-02": 2, "2026-03-02T01:00:00+01:00": 2,
    "2026-03-02T00:00:00.001Z": 1, "9999-12-31": 0,
}  # fmt: skip


async def test_since_is_when_a_run_began(script: Somebody) -> None:
    for day in (1, 2, 3):
        await script.report(started_at=f"2026-03-0{day}")
    for since, count in SINCE.items():
        (page,) = await script.pages(since=since)
        assert len(page) == count
        assert (await script.csv(since=since)).count("\r\n") == count + 1


@one_engine
async def test_a_since_that_cannot_be_read_is_refused_by_name(script: Somebody) -> None:
    for listing in (script.pages, script.csv):
        with pytest.raises(InvalidArgument) as refused:
            await listing(since="last week")
        assert [violation.field for violation in refused.value.violations] == ["since"]


async def test_the_earlier_list_filters_by_batch_and_status_and_is_bounded(script: Somebody) -> None:
    for number in range(4):
        status = SUCCEEDED if number % 2 else FAILED
        await script.report(status, run_id=f"nightly-{number // 2}", started_at=DAY + timedelta(hours=number))
    assert [run.run_id for run in await script.listed()] == ["nightly-1", "nightly-1", "nightly-0", "nightly-0"]
    assert [run.run_id for run in await script.listed(run_id="nightly-0", status=FAILED)] == ["nightly-0"]
    assert len(await script.listed(limit=3)) == 3
    for limit in (0, 1001):
        with pytest.raises(InvalidArgument, match="limit"):
            await script.listed(limit=limit)


@pytest.mark.parametrize("log", ["x" * 900_000, "\x01" * 170_000], ids=["large", "large as JSON only"])
async def test_large_inputs_end_a_page_early_and_lose_nothing(script: Somebody, log: str) -> None:
    runs = [await script.report(inputs={"log": log}, started_at=DAY + timedelta(hours=number)) for number in range(9)]
    pages = await script.pages(limit=9)
    assert len(pages) >= 2
    found = list(chain.from_iterable(pages))
    assert [run.id for run in found] == [run.id for run in runs[::-1]]
    assert [from_struct(run.inputs) for run in found] == [from_struct(run.inputs) for run in runs[::-1]]
    # The earlier list has no next page to put the others on.
    with pytest.raises(InvalidArgument, match="limit"):
        await script.listed()
    assert len(await script.listed(limit=2)) == 2


async def test_a_cursor_fits_only_its_own_list(script: Somebody) -> None:
    for number in range(3):
        await script.report(started_at=DAY + timedelta(hours=number))
    cursor = (await script.ledger.PageLedgerRuns(PageLedgerRunsRequest(limit=1))).next_cursor
    unsigned = base64.urlsafe_b64encode(b'{"started_at": "2026-03-01T00:00:00", "id": 1}').decode()
    for request in (
        PageLedgerRunsRequest(cursor=cursor, task=["seo.validate"]),
        PageLedgerRunsRequest(cursor=cursor, since="2026-03-01"),
        PageLedgerRunsRequest(cursor=cursor[:-2] + "AA"),
        PageLedgerRunsRequest(cursor=unsigned),
        PageLedgerRunsRequest(cursor="not a cursor"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await script.ledger.PageLedgerRuns(request)
        assert refused.value.reason == "CURSOR_INVALID"
    # Another limit makes no other list.
    assert len((await script.ledger.PageLedgerRuns(PageLedgerRunsRequest(limit=5, cursor=cursor))).items) == 2


async def test_the_download_has_nine_columns_and_the_pages_order(script: Somebody) -> None:
    for number in range(5):
        run = await script.report(started_at=DAY + timedelta(hours=number))
        if number % 2:
            await script.patch(run.id, status=FAILED, outputs_uri="https://a", log_excerpt="no\ndisk", duration_ms=7)
    rows = list(csv.reader(io.StringIO(await script.csv(), newline="")))
    assert rows[0] == COLUMNS
    (page,) = await script.pages()
    assert [row[0] for row in rows[1:]] == [run.id for run in page]
    ended = page[1]
    assert rows[2][1:] == [
        "seo.validate", "nightly-2026-03-01", "failed", "2026-03-01T03:00:00.000000Z",
        ended.finished_at.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "7", "https://a", "no\ndisk",
    ]  # fmt: skip
    assert rows[1][5:] == ["", "", "", ""]


async def test_a_long_log_is_cut(script: Somebody) -> None:
    lengths = (99, 100, 101, 2000)
    for number, length in enumerate(lengths):
        run = await script.report(SUCCEEDED, started_at=DAY - timedelta(hours=number))
        await script.patch(run.id, log_excerpt="ä" * length)
    rows = list(csv.reader(io.StringIO(await script.csv(), newline="")))[1:]
    assert [row[8] for row in rows] == ["ä" * 99, "ä" * 100, "ä" * 100 + "…", "ä" * 100 + "…"]
    assert [len(run.log_excerpt) for run in await script.listed()] == list(lengths)


async def test_a_cell_is_no_formula(script: Somebody) -> None:
    run = await script.report(SUCCEEDED, task="=1+1", run_id="@SUM(A1)")
    await script.patch(run.id, outputs_uri="+1", log_excerpt="-2" + "x" * 200)
    row = list(csv.reader(io.StringIO(await script.csv(), newline="")))[1]
    assert (row[1], row[2], row[7], row[8]) == ("'=1+1", "'@SUM(A1)", "'+1", "'-2" + "x" * 98 + "…")


async def test_the_download_is_filtered_bounded_and_ignores_a_cursor(tasks: Tasks, script: Somebody) -> None:
    await add_runs(tasks, [DAY + timedelta(seconds=number) for number in range(1100)])
    assert (await script.csv()).count("\r\n") == 1001
    assert (await script.csv(limit=10_000)).count("\r\n") == 1101
    assert (await script.csv(limit=3, cursor="stale")).count("\r\n") == 4
    assert (await script.csv(status=[SUCCEEDED], task=["t"])).count("\r\n") == 368
    for limit in (0, 10_001):
        with pytest.raises(InvalidArgument, match="limit"):
            await script.csv(limit=limit)


@one_engine
async def test_reading_needs_its_scope(tasks: Tasks) -> None:
    stranger = Somebody(tasks, "runs:report", "approvals:decide")
    for listing in (stranger.listed, stranger.pages, stranger.csv):
        with pytest.raises(PermissionDenied) as refused:
            await listing()
        assert refused.value.reason == "SCOPE_MISSING"

"""A page of the history is read off an index, whatever the filter: nothing is scanned whole, nothing sorted whole."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.chassis.ids import id_at, new_id
from services.tasks.models.run import RunStatus
from services.tasks.models.run_filter import RunFilter
from services.tasks.servicer.run import _COUNTED
from services.tasks.store import history
from services.tasks.store import statistics as run_statistics
from tests.integration.tasks.past import add_past_runs, failed_run, past_run
from tests.integration.tasks.planning import plans
from tests.integration.tasks.running import Tasks, one_engine

_RUNS = 12_000
_MOST = 1100  # 51 of each of 20 tasks, before they are merged
_TASKS, _AGENTS = [new_id() for _ in range(20)], [new_id() for _ in range(5)]
_NOBODY = new_id()
_EVENTS = [new_id() for _ in range(20)]
_FAILED, _CANCELED = frozenset({RunStatus.FAILED}), frozenset({RunStatus.CANCELED})


def _rows() -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    rows = []
    for number in range(_RUNS):
        fields = {
            "id": id_at(now - timedelta(seconds=_RUNS - number)), "task": f"name {number % 20}",
            "task_id": _TASKS[number % 20], "agent_id": _AGENTS[number % 5], "batch_id": f"b{number // 50}",
            "role": "reviewer" if number % 3 else "", "event_id": _EVENTS[number % 20] if number % 2 else None,
        }  # fmt: skip
        is_canceled = number % 999 == 7
        tells = number % 4 == 0 and not is_canceled
        rows.append(
            failed_run(f"no {number:05}", **fields)
            if tells
            else past_run(**fields, status="canceled" if is_canceled else "succeeded")
        )
    return rows


@pytest.fixture
async def full(tasks: Tasks, engine: str, request: pytest.FixtureRequest) -> Tasks:
    """A service with some thousand finished runs, which PostgreSQL has counted."""
    await add_past_runs(tasks, _rows())
    if engine == "postgres":
        with psycopg.connect(request.getfixturevalue("postgres_database"), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) tasks.run_history")
    return tasks


def assert_little_is_read(found: str) -> None:
    """That no step handles more than a page and what is looked through for one: on SQLite, that none scans."""
    assert not re.search(r"Seq Scan on run_history_\d.*rows=[1-9]", found), found
    assert_handled(found, _MOST)


def assert_handled(found: str, most: float) -> None:
    """That no step takes up or lets go more rows than `most`: on SQLite, that none scans a table without an index."""
    assert not re.search(r"SCAN (run_history|found)(?! USING (COVERING )?INDEX)", found), found
    handled = re.findall(r"(?:rows=|Rows Removed by \w+(?: \w+)*: )(\d+(?:\.\d+)?)", found)
    assert max((float(rows) for rows in handled), default=0) <= most, found


_FILTERS = {
    "none": RunFilter(),
    "common status": RunFilter(statuses=frozenset({RunStatus.SUCCEEDED})),
    "rare status": RunFilter(statuses=_CANCELED),
    "two statuses": RunFilter(statuses=_FAILED | _CANCELED),
    "task_id": RunFilter(task_ids=(_TASKS[3],)),
    "many task_ids": RunFilter(task_ids=tuple(_TASKS)),
    "task": RunFilter(tasks=("name 4",)),
    "no such task": RunFilter(tasks=("nobody",)),
    "no such task of an agent": RunFilter(tasks=("nobody",), agent_ids=(_AGENTS[1],)),
    "task of an agent that has no run": RunFilter(tasks=("name 4",), agent_ids=(_NOBODY,)),
    "agent of no such role": RunFilter(agent_ids=(_AGENTS[1],), roles=("nobody",)),
    "many task_ids, one role": RunFilter(task_ids=tuple(_TASKS), roles=("reviewer",)),
    "task of no batch": RunFilter(tasks=("name 4",), batch_ids=("",)),
    "task and rare status": RunFilter(tasks=("name 4",), statuses=_CANCELED),
    "batch": RunFilter(batch_ids=("b7",)),
    "event": RunFilter(event_ids=(_EVENTS[3],)),
    "event and rare status": RunFilter(event_ids=(_EVENTS[3],), statuses=_CANCELED),
    "no such event": RunFilter(event_ids=(_NOBODY,)),
    "role": RunFilter(roles=("reviewer",)),
    "no such role": RunFilter(roles=("nobody",)),
    "role of the built-in worker": RunFilter(roles=("",)),
    "agent": RunFilter(agent_ids=(_AGENTS[1],)),
    "agent and rare status": RunFilter(agent_ids=(_AGENTS[1],), statuses=_CANCELED),
    "since": RunFilter(since=datetime.now(UTC) - timedelta(minutes=5)),
    "common text": RunFilter(text="no "),
    "rare text": RunFilter(text="no 00444"),
    "text that nobody has": RunFilter(text="nowhere"),
}


async def test_a_page_with_any_filter_reads_little_more_than_itself(full: Tasks) -> None:
    deep = id_at(datetime.now(UTC) - timedelta(seconds=_RUNS // 2))
    for name, wanted in _FILTERS.items():
        for before_id in (None, deep):

            def page(connection: Connection, clock: Clock, wanted: Any = wanted, before_id: Any = before_id) -> None:
                history.list_runs(connection, wanted, limit=51, before_id=before_id)

            for found in await plans(full, page):
                try:
                    assert_little_is_read(found)
                except AssertionError as wrong:
                    raise AssertionError(f"{name}, before {before_id}: {wrong}") from None


async def test_a_total_reads_no_more_than_it_counts_up_to(full: Tasks) -> None:
    for name, wanted in _FILTERS.items():
        if wanted.text:
            continue

        def total(connection: Connection, clock: Clock, wanted: Any = wanted) -> None:
            history.count_runs(connection, wanted, at_most=_COUNTED)

        for found in await plans(full, total):
            try:
                assert_handled(found, _COUNTED)
            except AssertionError as wrong:
                raise AssertionError(f"{name}: {wrong}") from None


@one_engine
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("no such task of an agent", "task"),
        ("task of an agent that has no run", "agent_id"),
        ("agent of no such role", "role"),
        ("many task_ids, one role", "role"),
    ],
)
async def test_the_column_with_the_fewest_runs_leads(full: Tasks, name: str, column: str) -> None:
    found = await plans(full, lambda connection, clock: history.list_runs(connection, _FILTERS[name], limit=51))
    # What PostgreSQL reads, its plans tell; SQLite's tell the index alone.
    (page,) = [plan for plan in found if "ix_run_history" in plan and "SCALAR SUBQUERY" not in plan]
    assert re.findall(r"ix_run_history_(\w+)", page) == [column]


async def test_statistics_of_a_task_are_counted_off_an_index(full: Tasks) -> None:
    since = datetime.now(UTC) - timedelta(days=7)
    found = await plans(full, lambda connection, clock: run_statistics.run_stats(connection, since, _TASKS[3]))
    assert re.search(
        "Index Only Scan using run_history_.*task_id|USING COVERING INDEX ix_run_history_task_id", found[0]
    )

"""Finding runs in the history: every filter, alone and with others, on both engines."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from baton.tasks.v1 import run_pb2
from baton.tasks.v1.run_service_pb2 import ListRunsRequest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, update

from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument
from services.chassis.ids import id_at, new_id
from services.tasks.models.run_filter import RunFilter
from services.tasks.store import history, search, tables
from tests.integration.tasks.past import add_past_runs, failed_run, listed, past_run
from tests.integration.tasks.reporting import reporter
from tests.integration.tasks.running import Tasks, one_engine

SUCCEEDED, FAILED, SKIPPED = run_pb2.RUN_STATUS_SUCCEEDED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_SKIPPED
QUEUED, RUNNING = run_pb2.RUN_STATUS_QUEUED, run_pb2.RUN_STATUS_RUNNING
NOW = datetime.now(UTC)


def at(days_ago: float) -> str:
    return id_at(NOW - timedelta(days=days_ago))


def timestamp(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message


async def test_each_filter_finds_its_runs_and_no_others(tasks: Tasks) -> None:
    agents, owners = [new_id(), new_id()], [new_id(), new_id()]
    rows = [
        past_run(
            f"name {number % 5}", id=at(400 - number), task_id=owners[number % 2],
            batch_id=f"b{number % 7}" * (number % 3),
            role=("", "reviewer", "builder")[number % 3], agent_id=agents[number % 2],
            status=("succeeded", "skipped", "failed", "canceled")[number % 4],
        )
        for number in range(120)
    ]  # fmt: skip
    await add_past_runs(tasks, rows)

    async def check(passes: Callable[[dict[str, Any]], bool], **filters: Any) -> None:
        expected = [row["id"] for row in reversed(rows) if passes(row)]
        assert await listed(tasks, limit=7, **filters) == expected
        assert (await tasks.runs.ListRuns(ListRunsRequest(**filters))).total == len(expected)

    await check(lambda row: True)
    await check(lambda row: row["task_id"] == owners[0], task_id=[owners[0].upper()])
    await check(lambda row: row["task"] in ("name 1", "name 3"), task=["name 1", "name 3", "name 9"])
    await check(lambda row: row["batch_id"] == "b4", batch_id=["b4"])
    await check(lambda row: row["batch_id"] in ("", "b4"), batch_id=["", "b4"])
    await check(lambda row: row["role"] == "builder", role=["builder"])
    await check(lambda row: row["role"] == "", role=[""])
    await check(lambda row: row["agent_id"] == agents[1], agent_id=[agents[1]])
    await check(lambda row: row["status"] == "failed", status=[FAILED])
    await check(lambda row: row["status"] in ("failed", "skipped"), status=[FAILED, SKIPPED])
    await check(lambda row: row["status"] == "succeeded", success=True)
    await check(lambda row: row["status"] != "succeeded", success=False)
    await check(lambda row: False, status=[SUCCEEDED], success=False)
    await check(
        lambda row: row["role"] == "builder" and row["agent_id"] == agents[0] and row["status"] == "failed",
        role=["builder"], agent_id=[agents[0]], status=[FAILED],
    )  # fmt: skip
    await check(
        lambda row: row["task"] == "name 2" and row["batch_id"] in ("b1", "b2") and row["status"] != "succeeded",
        task=["name 2"], batch_id=["b1", "b2"], success=False,
    )  # fmt: skip


async def test_live_runs_pass_the_same_filters(tasks: Tasks) -> None:
    task = await tasks.create(title="a live one", role="")
    waiting, held = await tasks.queue_runs(task.id, 2)
    (leased,) = await tasks.lease()
    held, waiting = leased.lease.run_id, waiting if leased.lease.run_id == held else held
    (past,) = await add_past_runs(tasks, [past_run("a live one", task_id=task.id)])
    assert await listed(tasks, task=["a live one"]) == sorted([past, held, waiting], reverse=True)
    assert await listed(tasks, status=[QUEUED]) == [waiting]
    assert await listed(tasks, status=[RUNNING, SUCCEEDED]) == sorted([past, held], reverse=True)
    assert await listed(tasks, success=False) == []
    assert await listed(tasks, role=[""], task_id=[task.id], status=[RUNNING]) == [held]
    assert await listed(tasks, text="LIVE") == sorted([past, held, waiting], reverse=True)


async def test_times_are_those_of_the_ids(tasks: Tasks) -> None:
    instants = [datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in range(5)]
    ids = await add_past_runs(tasks, [past_run(id=id_at(instant)) for instant in instants])
    since, until = timestamp(instants[1]), timestamp(instants[3])
    assert await listed(tasks, since=since) == ids[:0:-1]
    assert await listed(tasks, until=until) == ids[2::-1]
    assert await listed(tasks, since=since, until=until, limit=1) == [ids[2], ids[1]]
    # The names that earlier clients send.
    assert await listed(tasks, start_time=since, end_time=until) == [ids[2], ids[1]]
    assert await listed(tasks, since=since, start_time=since) == ids[:0:-1]
    assert await listed(tasks, since=until, until=since) == []


async def test_times_within_a_millisecond_are_those_that_the_runs_tell(tasks: Tasks) -> None:
    start = datetime(2026, 5, 1, 10, tzinfo=UTC)
    instants = [start + timedelta(microseconds=number) for number in (100, 500, 900, 1000)]
    reported = [past_run(id=id_at(at), reported=True, started_at=at) for at in instants]
    # The ids of these know the millisecond alone.
    own = [
        past_run(id=id_at(start + timedelta(microseconds=at.microsecond // 1000 * 1000)), created_at=at)
        for at in instants
    ]
    await add_past_runs(tasks, [*reported, *own])
    times = {row["id"]: row["started_at"] for row in reported} | {row["id"]: row["created_at"] for row in own}
    at_once = await reporter(tasks).report(RUNNING, started_at=instants[1])
    times[at_once.id] = instants[1]

    for microseconds in (0, 99, 100, 101, 500, 501, 900, 999, 1000, 1001):
        instant = start + timedelta(microseconds=microseconds)
        late, early = (
            [of for of in sorted(times, reverse=True) if (times[of] >= instant) is is_late] for is_late in (True, False)
        )
        for filters, expected in (({"since": timestamp(instant)}, late), ({"until": timestamp(instant)}, early)):
            assert await listed(tasks, limit=3, **filters) == expected
            assert (await tasks.runs.ListRuns(ListRunsRequest(**filters))).total == len(expected)
            assert await listed(tasks, **filters, task=["a task"]) == [of for of in expected if of != at_once.id]


async def test_a_text_is_found_within_a_millisecond(tasks: Tasks) -> None:
    instants = [datetime(2026, 5, 1, 10, 0, 0, microseconds, tzinfo=UTC) for microseconds in (100, 500, 900)]
    rows = [failed_run("needle", id=id_at(at), reported=True, started_at=at) for at in instants]
    ids = await add_past_runs(tasks, [*rows, failed_run("needle", id=id_at(instants[1]), created_at=instants[1])])
    since, until = timestamp(instants[1]), timestamp(instants[2])
    assert set(await listed(tasks, text="needle", since=since)) == set(ids[1:])
    assert set(await listed(tasks, text="needle", until=until)) == {ids[0], ids[1], ids[3]}
    assert set(await listed(tasks, text="needle", since=since, until=until)) == {ids[1], ids[3]}


@one_engine
@pytest.mark.parametrize(("name", "other"), [("since", "start_time"), ("until", "end_time")])
async def test_two_names_of_one_time_must_agree(tasks: Tasks, name: str, other: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tasks.runs.ListRuns(ListRunsRequest(**{name: timestamp(NOW), other: timestamp(datetime.now(UTC))}))
    assert [violation.field for violation in refused.value.violations] == [other]


async def test_a_page_goes_on_where_the_one_before_ended_over_years(tasks: Tasks) -> None:
    ids = await add_past_runs(tasks, [past_run("rare", id=at(days)) for days in (1200, 700, 300, 90, 40, 20, 2)])
    for limit in (1, 2, 3, 200):
        assert await listed(tasks, limit=limit) == ids[::-1]
        assert await listed(tasks, limit=limit, task=["rare"]) == ids[::-1]


async def test_offset_and_total_work_as_they_did(tasks: Tasks) -> None:
    ids = await add_past_runs(tasks, [past_run(id=at(100 - number)) for number in range(30)])
    page = await tasks.runs.ListRuns(ListRunsRequest(limit=10, offset=5))
    assert [run.id for run in page.items] == ids[::-1][5:15]
    assert (page.total, page.limit, page.offset, page.has_more) == (30, 10, 5, True)
    # A cursor goes on from there, without the offset; and it counts no more.
    after = await tasks.runs.ListRuns(ListRunsRequest(limit=10, cursor=page.next_cursor))
    assert [run.id for run in after.items] == ids[::-1][15:25]
    assert not after.HasField("total")
    past_the_end = await tasks.runs.ListRuns(ListRunsRequest(offset=10_000))
    assert (list(past_the_end.items), past_the_end.total) == ([], 30)
    with pytest.raises(InvalidArgument) as refused:
        await tasks.runs.ListRuns(ListRunsRequest(cursor=page.next_cursor, offset=5))
    assert [violation.field for violation in refused.value.violations] == ["offset"]


async def test_messages_of_errors_can_be_left_out(tasks: Tasks) -> None:
    await add_past_runs(tasks, [failed_run("the password is swordfish")])
    for include, message in ((None, "the password is swordfish"), (True, "the password is swordfish"), (False, "")):
        (run,) = (await tasks.runs.ListRuns(ListRunsRequest(include_errors=include))).items
        assert (run.error.message, getattr(run.error, "class")) == (message, run_pb2.ERROR_CLASS_TOOL)


async def test_text_is_found_in_names_logs_and_messages(tasks: Tasks) -> None:
    rows = [
        failed_run("Upstream said: connection REFUSED (code 0x5f3a)", id=at(500)),
        past_run("Refused claims", id=at(400), reported=True),
        past_run("x", id=at(300), log_excerpt="three were refused, 100% done_"),
        past_run("x", id=at(200), log_excerpt="nothing of the kind"),
        failed_run('he said "no" % and left; Chișinău', id=at(1), task="claims"),
    ]
    first, named, logged, _, newest = await add_past_runs(tasks, rows)
    assert await listed(tasks, text="refused", limit=1) == [logged, named, first]
    assert await listed(tasks, text="rEFUSED", success=False) == [first]
    assert await listed(tasks, text="n refused (c") == [first]
    assert await listed(tasks, text="0X5F3") == [first]
    assert await listed(tasks, text='said "no" %') == [newest]
    assert await listed(tasks, text="100%") == [logged]
    assert await listed(tasks, text="done_") == [logged]
    assert await listed(tasks, text="șină") == [newest]
    assert await listed(tasks, text="refused", since=timestamp(NOW - timedelta(days=350))) == [logged]
    assert await listed(tasks, text="refused", until=timestamp(NOW - timedelta(days=450))) == [first]
    for nowhere in ("refusal", "ref sed", "' OR 1=1 --", '"', "NEAR(said no)", "said*"):
        assert await listed(tasks, text=nowhere.ljust(3)) == []


async def test_many_of_one_millisecond_are_found_in_order(tasks: Tasks) -> None:
    instant = NOW - timedelta(days=40)
    rows = [failed_run("all at once", id=id_at(instant)) for _ in range(40)]
    ids = sorted(await add_past_runs(tasks, rows), reverse=True)
    assert await listed(tasks, text="at once", limit=9) == ids


async def test_a_text_is_found_in_any_case_however_far_a_run_has_come(tasks: Tasks) -> None:
    script = reporter(tasks)
    named = await script.report(RUNNING, task="ПРИВЕТ задача")
    logged = await script.report(RUNNING, log_excerpt="ОШИБКА сети")
    for _ in range(2):
        assert await listed(tasks, text="привет Задача") == [named.id]
        assert await listed(tasks, text="ошибка") == [logged.id]
        for run in (named, logged):
            await script.patch(run.id, status=SUCCEEDED)


async def test_a_letter_without_another_form_of_its_own_is_found_as_it_is_written(tasks: Tasks) -> None:
    script = reporter(tasks)
    dotted = await script.report(RUNNING, log_excerpt="İstanbul")
    dotless = await script.report(RUNNING, log_excerpt="d\u0131\u015f")
    plain = await script.report(RUNNING, log_excerpt="istanbul, DIŞ")
    for _ in range(2):
        assert await listed(tasks, text="İSTANBUL") == [dotted.id]
        assert await listed(tasks, text="ISTANBUL") == [plain.id]
        assert await listed(tasks, text="D\u0131\u015e") == [dotless.id]
        assert await listed(tasks, text="di\u015f") == [plain.id]
        for run in (dotted, dotless, plain):
            await script.patch(run.id, status=SUCCEEDED)


async def test_a_text_is_found_behind_many_others(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_LOOKED_THROUGH", 5)
    rows = [failed_run("needle" if number % 10 == 0 else "hay", id=at(900 - number)) for number in range(60)]
    ids = await add_past_runs(tasks, rows)
    assert await listed(tasks, text="needle", limit=4) == ids[50::-10]
    assert await listed(tasks, text="needle", limit=4, success=True) == []


async def test_names_of_tasks_are_searched_whatever_became_of_them(tasks: Tasks, monkeypatch: Any) -> None:
    task = await tasks.create(title="Quarterly numbers")
    (run_id,) = await tasks.queue_runs(task.id, 1)
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    assert await listed(tasks, text="terly num") == [run_id]
    # More names than are looked up one by one.
    monkeypatch.setattr(search, "_MAX_NAMES", 0)
    assert await listed(tasks, text="terly num") == [run_id]


async def test_what_a_run_says_later_is_found_and_what_it_said_is_not(tasks: Tasks) -> None:
    (run_id,) = await add_past_runs(tasks, [past_run(log_excerpt="at first")])

    async def say(words: str) -> None:
        def change(connection: Connection, clock: Clock) -> None:
            past = tables.run_history
            connection.execute(update(past).where(past.c.id == run_id).values(log_excerpt=words))

        await tasks.database.transact(change)

    await say("at last")
    assert await listed(tasks, text="at first") == []
    assert await listed(tasks, text="at last") == [run_id]
    await say("")
    assert await listed(tasks, text="at last") == []


async def test_an_export_searches_as_the_list_does(tasks: Tasks) -> None:
    rows = [failed_run("needle", id=at(3)), failed_run("hay", id=at(2)), past_run("a needle", id=at(1), reported=True)]
    in_message, _, named = await add_past_runs(tasks, rows)

    def found(connection: Connection, clock: Clock) -> list[str]:
        return [str(row.id) for row in connection.execute(history.all_runs(connection, RunFilter(text="Needle")))]

    assert sorted(await tasks.database.read(found)) == sorted([in_message, named])

"""A tool that asks to be left alone for a while: its words reach the service with the run's failure."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from services.chassis.retry_after import from_headers
from services.worker.tools.retry_after import from_meta
from tests.support.fake_tasks import FakeRun, FakeTasks
from tests.support.mcp_servers import Gate
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
DATE = "Sun, 06 Nov 1994 08:48:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": "9" * 400}, 3600),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 30),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 30),
        ({"retry-after": "Sun Nov  6 08:49:37 1994"}, 30),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": DATE}, 60),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", "date": "today"}, 30),
        ({"retry-after": "Sun, 06 Nov 1994 07:49:37 GMT"}, 0),
        ({"retry-after": "Sun, 06 Nov 2094 08:49:37 GMT"}, 3600),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_what_a_header_says(headers: dict[str, str], seconds: float | None) -> None:
    assert from_headers(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(2, 2), (0.5, 0.5), (0, 0), (10**400, 3600), (-1, None), (float("nan"), None), (True, None), ("5", None)],
)
def test_what_the_meta_of_a_result_says(said: Any, seconds: float | None) -> None:
    assert from_meta({"retry_after_seconds": said}) == seconds


def test_a_result_without_meta_says_nothing() -> None:
    assert (from_meta(None), from_meta({})) == (None, None)


def asked(run: FakeRun) -> float | None:
    """The seconds that were reported with the failure."""
    assert run.outcome is not None
    failed = run.outcome.failed
    return failed.retry_after.ToTimedelta().total_seconds() if failed.HasField("retry_after") else None


CALL = b'"tools/call"'
SAY = {"uses": "mis.say", "with": {"text": "hello"}}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_over_http_that_refuses_a_call(
    tasks: FakeTasks, working: Working, gate: Gate, status: int
) -> None:
    async with working():
        await tasks.ended(await tasks.enqueue(SAY))
        gate.answers[CALL] = Response(status_code=status, headers={"Retry-After": "7"})
        run = await tasks.ended(await tasks.enqueue(SAY))
    assert (asked(run), run.error.retryable) == (7, True)
    assert f"(HTTP {status}, asks to be left alone for 7 s)" in run.error.message
    assert run.steps[0].error == run.error


async def test_a_server_that_names_a_date(tasks: FakeTasks, working: Working, gate: Gate) -> None:
    async with working():
        await tasks.ended(await tasks.enqueue(SAY))
        until = datetime.now(UTC) + timedelta(minutes=10)
        gate.answers[CALL] = Response(status_code=503, headers={"Retry-After": format_datetime(until, usegmt=True)})
        run = await tasks.ended(await tasks.enqueue(SAY))
    assert 590 < (asked(run) or 0) <= 601


async def test_a_refusal_in_the_servers_own_words(tasks: FakeTasks, working: Working, gate: Gate) -> None:
    async with working():
        await tasks.ended(await tasks.enqueue(SAY))
        error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "too many calls"}}
        gate.answers[CALL] = JSONResponse(error, 429, headers={"Retry-After": "3"})
        run = await tasks.ended(await tasks.enqueue(SAY))
    assert asked(run) == 3
    assert run.error.message == "tool server mis: too many calls (HTTP 429, asks to be left alone for 3 s)"


async def test_a_server_that_refuses_to_open_a_session(tasks: FakeTasks, working: Working, gate: Gate) -> None:
    gate.answers[b""] = Response(status_code=503, headers={"Retry-After": "5"})
    async with working():
        run = await tasks.ended(await tasks.enqueue(SAY))
    assert asked(run) == 5
    assert "tool server mis cannot be reached" in run.error.message


@pytest.mark.parametrize(
    "answer",
    [Response(status_code=503), Response(status_code=500, headers={"Retry-After": "7"})],
    ids=["no time", "another status"],
)
async def test_a_server_that_fails_without_asking_for_time(
    tasks: FakeTasks, working: Working, gate: Gate, answer: Response
) -> None:
    async with working():
        await tasks.ended(await tasks.enqueue(SAY))
        gate.answers[CALL] = answer
        run = await tasks.ended(await tasks.enqueue(SAY))
    assert (run.ending, asked(run)) == ("failed", None)


async def test_a_refusal_concerns_only_the_call_that_was_refused(
    tasks: FakeTasks, working: Working, gate: Gate
) -> None:
    failing = {"uses": "mis.fail", "with": {"message": "no luck"}}
    async with working():
        await tasks.ended(await tasks.enqueue(SAY))
        gate.answers[b'"say"'] = Response(status_code=429, headers={"Retry-After": "7"})
        gate.answers[b'"fail"'] = Response(status_code=500)
        runs = [await tasks.enqueue(step) for step in (SAY, failing, SAY, failing)]
        await await_until(lambda: all(run.outcome for run in runs))
    assert [asked(run) for run in runs] == [7, None, 7, None]


async def test_a_tool_that_fails_and_asks_to_be_left_alone(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    async with working():
        run = await tasks.ended(await tasks.enqueue({"uses": "mis.busy", "with": {"seconds": 90.5}}))
        other = await tasks.ended(await tasks.enqueue({"uses": "mis.busy", "with": {"seconds": "soon"}}))
    assert (run.error.message, asked(run)) == ("not now", 90.5)
    assert (other.error.message, asked(other)) == ("not now", None)

"""The probes of conditions, as the worker does them."""

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from baton.tasks.v1 import probe_service_pb2 as pb

from services.chassis.structs import from_value
from services.pipeline import canonical
from services.worker.probing import MAX_PROBES, MAX_RESULT_BYTES
from services.worker.secrets.folder import Secrets
from tests.support.fake_tasks import FakeProbe, FakeTasks
from tests.support.mcp_servers import slow_calls
from tests.support.waiting import await_until
from tests.unit.worker.conftest import Working


async def told(tasks: FakeTasks, working: Working, probe: FakeProbe, **options: Any) -> pb.ProbeReport:
    """What the worker tells of a probe."""
    tasks.probes.append(probe)
    async with working(**options):
        await await_until(lambda: probe.reports)
    (report,) = probe.reports
    return report


async def test_an_expression_is_evaluated_over_what_the_tool_answers(tasks: FakeTasks, working: Working) -> None:
    answer = {"n": 5, "by": "a task", "year": "20"}
    asked = {"n": "${params.n}", "by": "${task.title}", "year": "${now[:2]}"}
    probe = FakeProbe("result.n > 3 && params.n == 5", with_=asked, params={"n": 5})
    report = await told(tasks, working, probe)
    evaluated = report.evaluated
    assert (evaluated.holds, from_value(evaluated.result)) == (True, answer)
    assert evaluated.excerpt == canonical.encode(answer).decode()
    assert evaluated.result_digest == canonical.digest(answer)


async def test_what_is_false_brings_no_result_along(tasks: FakeTasks, working: Working) -> None:
    report = await told(tasks, working, FakeProbe("result.n > 3", with_={"n": 3}))
    assert (report.HasField("evaluated"), report.evaluated.holds) == (True, False)
    assert not report.evaluated.HasField("result")
    assert report.evaluated.excerpt == '{"n":3}'


@pytest.mark.parametrize(
    ("probe", "error"),
    [
        (FakeProbe("true", "mis.fail", {"message": "no disk"}), "no disk"),
        (FakeProbe("true", "mis.fail", {"message": "a\x00b"}), "ab"),
        (
            FakeProbe("true", "mis.slow", {"seconds": 30}, timeout_seconds=0.2),
            "no answer from tool server mis within 0.2 s",
        ),
        (FakeProbe("true", "nowhere.tool"), "nowhere"),
        (FakeProbe("true", with_={"a": "${params.b}"}), "params.b is missing"),
        (FakeProbe("result.up", with_={"down": True}), "the expression cannot be evaluated"),
        (FakeProbe("result.n", with_={"n": 1}), "the expression is a double here, and must be true or false"),
        (FakeProbe("result.n +", with_={"n": 1}), "is no CEL"),
        (FakeProbe("true", "mis.big", {"size": MAX_RESULT_BYTES}), f"the result is {MAX_RESULT_BYTES + 2} bytes"),
    ],
)
async def test_what_cannot_be_told_is_told_as_that(
    tasks: FakeTasks, working: Working, http_server: str, probe: FakeProbe, error: str
) -> None:
    report = await told(tasks, working, probe)
    assert (report.HasField("failed"), error in report.failed.error) == (True, True), report.failed.error


async def test_an_excerpt_has_a_kibibyte_and_no_half_characters(tasks: FakeTasks, working: Working) -> None:
    report = await told(tasks, working, FakeProbe("false", with_={"text": "ä" * 1000}))
    assert len(report.evaluated.excerpt.encode()) == 1023
    assert report.evaluated.excerpt.startswith('{"text":"ää')


async def test_a_call_has_a_key_of_its_own(tasks: FakeTasks, working: Working, http_server: str) -> None:
    probe = FakeProbe("true", "mis.key")
    report = await told(tasks, working, probe)
    assert from_value(report.evaluated.result) == f"probe:{probe.task_id}:7"


async def test_secrets_reach_the_tool_and_nobody_else(
    tasks: FakeTasks, working: Working, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "services.worker")
    (tmp_path / "token").write_text("ghp_4fT9vXw2LmQ8")
    (tmp_path / "token.tools").write_text("echo.*\n")
    probe = FakeProbe("size(result.key) > 0", with_={"key": "${secrets.token}"})
    report = await told(tasks, working, probe, secrets=Secrets(tmp_path))
    assert report.evaluated.holds
    assert "ghp_4fT9vXw2LmQ8" not in str(report) + str([vars(record) for record in caplog.records])


async def test_a_worker_with_a_role_does_no_probes(tasks: FakeTasks, working: Working) -> None:
    async with working(role="painter"):
        run = await tasks.ended(await tasks.enqueue({"uses": "echo.test"}, role="painter"))
    assert (run.ending, tasks.probe_calls) == ("succeeded", 0)


async def test_ten_are_done_side_by_side_and_the_others_wait(
    tasks: FakeTasks, working: Working, http_server: str
) -> None:
    tasks.probes += [FakeProbe("true", "mis.slow", {"seconds": 30}, timeout_seconds=60) for _ in range(MAX_PROBES)]
    waiting = FakeProbe("true")
    tasks.probes.append(waiting)
    async with working(tool_calls=MAX_PROBES):
        await await_until(lambda: slow_calls.now == MAX_PROBES)
        assert (waiting.leased, sum(probe.leased for probe in tasks.probes)) == (0, MAX_PROBES)


async def test_a_report_is_repeated_until_it_is_taken(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("ReportProbes", 2)
    report = await told(tasks, working, FakeProbe("true"))
    assert (report.evaluated.holds, tasks.failed["ReportProbes"]) == (True, 2)


async def test_probing_goes_on_after_the_service_was_away(tasks: FakeTasks, working: Working) -> None:
    tasks.fail("LeaseProbes", 2, grpc.StatusCode.UNAVAILABLE)
    assert (await told(tasks, working, FakeProbe("true"))).evaluated.holds


async def test_nothing_is_told_once_the_lease_is_over(
    tasks: FakeTasks, working: Working, http_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    probe = FakeProbe("true", "mis.slow", {"seconds": 30})
    probe.lasts /= 100
    tasks.probes.append(probe)
    async with working():
        await await_until(lambda: "probe_not_reported" in caplog.text)
    assert probe.reports == []


async def test_who_stops_gives_back_what_is_under_way(tasks: FakeTasks, working: Working, http_server: str) -> None:
    probe = FakeProbe("true", "mis.slow", {"seconds": 30}, timeout_seconds=60)
    tasks.probes.append(probe)
    async with working() as stop:
        await await_until(lambda: slow_calls.now)
        stop.set()
        await await_until(lambda: probe.reports)
    assert [report.WhichOneof("outcome") for report in probe.reports] == ["released"]
    assert probe.is_due

"""Runs that happen outside: reported, amended, decided on."""

import asyncio
import re
from collections import Counter
from datetime import UTC, timedelta
from itertools import product
from typing import Any

import pytest
from baton.tasks.v1.ledger_service_pb2 import ApproveLedgerRunRequest, UpdateLedgerRunRequest
from baton.tasks.v1.run_service_pb2 import CancelRunRequest
from baton.tasks.v1.run_service_pb2_grpc import RunServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from opentelemetry.metrics import NoOpCounter, NoOpMeter

from services.chassis import telemetry
from services.chassis.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
)
from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.tasks.store import tables
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.reporting import (
    APPROVED,
    AWAITING,
    CANCELED,
    CANCELLED,
    FAILED,
    PENDING,
    QUEUED,
    REJECTED,
    RUNNING,
    SKIPPED,
    STATUSES,
    SUCCEEDED,
    Somebody,
    approver,
    reporter,
)
from tests.integration.tasks.running import Tasks, one_engine

LIVE = {QUEUED, RUNNING, AWAITING}
ALLOWED = {
    (QUEUED, RUNNING), (QUEUED, SUCCEEDED), (QUEUED, FAILED), (QUEUED, SKIPPED), (QUEUED, AWAITING),
    (RUNNING, SUCCEEDED), (RUNNING, FAILED), (RUNNING, SKIPPED), (RUNNING, AWAITING),
}  # fmt: skip


@pytest.fixture
def script(tasks: Tasks) -> Somebody:
    return reporter(tasks)


@pytest.fixture
def person(tasks: Tasks) -> Somebody:
    return approver(tasks)


async def test_a_run_is_reported_from_its_begin_to_its_end(tasks: Tasks, script: Somebody) -> None:
    began = await script.report(inputs={"site": "https://example.com", "depth": 2})
    assert (began.task, began.run_id, began.status) == ("seo.validate", "nightly-2026-03-01", RUNNING)
    assert from_struct(began.inputs) == {"site": "https://example.com", "depth": 2}
    assert began.started_at.ToDatetime(UTC) == tasks.clock.now()
    assert not began.HasField("finished_at")
    tasks.clock.advance(seconds=90)
    ended = await script.patch(
        began.id, status=SUCCEEDED, outputs_uri="https://ci/artifacts/7", log_excerpt="all is well"
    )
    assert (ended.id, ended.status, ended.duration_ms) == (began.id, SUCCEEDED, 90_000)
    assert ended.finished_at.ToDatetime(UTC) == tasks.clock.now()
    assert (ended.outputs_uri, ended.log_excerpt) == ("https://ci/artifacts/7", "all is well")
    assert from_struct(ended.inputs) == from_struct(began.inputs)
    # It is a run like any other.
    run = await tasks.run(began.id)
    assert (run.task, run.batch_id, run.status, run.success) == ("seo.validate", "nightly-2026-03-01", SUCCEEDED, True)
    assert (run.created_by, run.agent_id, run.task_id) == (script.id, script.id, "")


async def test_no_worker_gets_a_reported_run(tasks: Tasks, script: Somebody) -> None:
    for status in LIVE:
        await script.report(status)
    assert await tasks.lease(limit=10) == []


async def test_any_status_may_be_the_first(tasks: Tasks, script: Somebody) -> None:
    for status in STATUSES:
        run = await script.report(status, started_at=tasks.clock.now() - timedelta(seconds=5))
        assert run.status == status
        assert run.HasField("finished_at") == (status not in LIVE)
        assert (run.duration_ms if run.HasField("duration_ms") else None) == (None if status in LIVE else 5000)
        assert run.approval_state == (PENDING if status == AWAITING else 0)
        assert (await tasks.run(run.id)).status == status


async def test_a_report_changes_the_status_only_as_the_table_says(tasks: Tasks, script: Somebody) -> None:
    for before, after in product(STATUSES, STATUSES):
        run = await script.report(before)
        if before == after or (before, after) in ALLOWED:
            assert (await script.patch(run.id, status=after)).status == after
            continue
        with pytest.raises(FailedPrecondition) as refused:
            await script.patch(run.id, status=after)
        assert refused.value.reason == ("RUN_TRANSITION_NOT_ALLOWED" if before in LIVE else "RUN_FINISHED")
        assert (await tasks.run(run.id)).status == before


async def test_a_refused_transition_says_what_is_allowed(script: Somebody) -> None:
    run = await script.report(RUNNING)
    with pytest.raises(FailedPrecondition) as refused:
        await script.patch(run.id, status=QUEUED)
    assert refused.value.metadata | {"run_id": ""} == {
        "run_id": "", "from": "running", "to": "queued", "allowed": "awaiting_approval, failed, skipped, succeeded",
    }  # fmt: skip


async def test_reports_that_race_end_a_run_once(tasks: Tasks, script: Somebody) -> None:
    for _ in range(5):
        run = await script.report()
        answers = await asyncio.gather(
            *(script.patch(run.id, status=status) for status in (SUCCEEDED, FAILED, SKIPPED, AWAITING) * 2),
            return_exceptions=True,
        )
        reached = {answer.status for answer in answers if not isinstance(answer, BaseException)}
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        # Whoever says the same as the first one is told so; all others come too late.
        assert len(reached) == 1
        assert len(refused) == 6
        assert {answer.reason for answer in refused if isinstance(answer, ServiceError)} <= {
            "RUN_FINISHED", "RUN_TRANSITION_NOT_ALLOWED",
        }  # fmt: skip
        assert (await tasks.run(run.id)).status in reached


async def test_only_what_is_given_is_changed_and_null_clears(script: Somebody) -> None:
    run = await script.report()
    await script.patch(run.id, log_excerpt="half way", outputs_uri="https://a", webhook_notified_at="2026-03-01")
    changed = await script.patch(run.id, "outputs_uri", "webhook_notified_at", log_excerpt="nearly there")
    assert (changed.log_excerpt, changed.HasField("outputs_uri")) == ("nearly there", False)
    assert not changed.HasField("webhook_notified_at")
    assert changed.status == RUNNING
    # A value that the mask does not name is not looked at.
    request = UpdateLedgerRunRequest(id=run.id, outputs_uri="https://b", update_mask=FieldMask(paths=["log_excerpt"]))
    cleared = (await script.ledger.UpdateLedgerRun(request)).run
    assert not cleared.HasField("log_excerpt")
    assert not cleared.HasField("outputs_uri")


async def test_the_end_may_be_reported_with_its_own_figures(script: Somebody) -> None:
    run = await script.report(started_at="2026-03-01T02:30:00Z")
    ended = await script.patch(
        run.id, status=FAILED, finished_at="2026-03-01T02:31:00+00:00", log_excerpt="a\nno disk\n"
    )
    assert (ended.duration_ms, ended.finished_at.ToJsonString()) == (60_000, "2026-03-01T02:31:00Z")
    other = await script.report(started_at="2026-03-01T02:30:00Z")
    ended = await script.patch(other.id, status=SUCCEEDED, finished_at="2026-03-01T02:29:59", duration_ms=17)
    assert ended.duration_ms == 17


async def test_a_run_may_be_reported_only_when_it_has_ended(tasks: Tasks, script: Somebody) -> None:
    begun, ended = tasks.clock.now() - timedelta(seconds=90), tasks.clock.now() - timedelta(seconds=30)
    run = await script.report(
        FAILED,
        started_at=begun,
        finished_at=ended.isoformat(),
        log_excerpt="first\nboom",
        outputs_uri="https://example.org/artifacts/1",
    )
    assert (run.finished_at.ToDatetime(UTC), run.duration_ms) == (ended, 60_000)
    assert (run.log_excerpt, run.outputs_uri) == ("first\nboom", "https://example.org/artifacts/1")
    assert (await tasks.run(run.id)).error.message == "boom"
    assert (await script.report(SUCCEEDED, started_at=begun, duration_ms=5)).duration_ms == 5


async def test_a_clock_that_is_behind_makes_no_negative_duration(script: Somebody) -> None:
    run = await script.report(started_at="2026-03-01T02:30:00Z")
    ended = await script.patch(run.id, status=SUCCEEDED, finished_at="2026-03-01T02:29:59Z")
    assert ended.duration_ms == 0


async def test_a_failure_says_the_last_line_of_its_log(tasks: Tasks, script: Somebody) -> None:
    run = await script.report()
    await script.patch(run.id, status=FAILED, log_excerpt="starting\n  disk is full  \n\n")
    error = (await tasks.run(run.id)).error
    assert (error.message, getattr(error, "class"), error.retryable) == ("disk is full", 9, False)


async def test_a_finished_run_takes_only_descriptions(tasks: Tasks, script: Somebody) -> None:
    run = await script.report(SUCCEEDED)
    tasks.clock.advance(seconds=5)
    after = await script.patch(
        run.id, log_excerpt="late", outputs_uri="https://a", webhook_notified_at="2026-03-01T03:00Z"
    )
    assert (after.log_excerpt, after.outputs_uri) == ("late", "https://a")
    assert after.webhook_notified_at.ToJsonString() == "2026-03-01T03:00:00Z"
    assert after.updated_at.ToDatetime(UTC) == tasks.clock.now()
    assert (after.finished_at, after.duration_ms) == (run.finished_at, run.duration_ms)
    for fields in ({"duration_ms": 99}, {"finished_at": "2026-03-01"}, {"log_excerpt": "x", "status": RUNNING}):
        with pytest.raises(FailedPrecondition, match="does not change") as refused:
            await script.patch(run.id, **fields)
        assert refused.value.reason == "RUN_FINISHED"
    assert (await tasks.run(run.id)).log_excerpt == "late"


async def test_a_report_that_is_sent_again_changes_nothing(tasks: Tasks, script: Somebody) -> None:
    run = await script.report()
    first = await script.patch(run.id, status=SUCCEEDED, log_excerpt="done", duration_ms=5)
    tasks.clock.advance(seconds=5)
    assert await script.patch(run.id, status=SUCCEEDED, log_excerpt="done", duration_ms=5) == first


@pytest.mark.parametrize("before", [RUNNING, AWAITING, SUCCEEDED])
async def test_nobody_approves_by_a_report(script: Somebody, before: Any) -> None:
    run = await script.report(before)
    with pytest.raises(InvalidArgument) as refused:
        await script.patch(run.id, approver="me", approval_note="fine", approval_state=APPROVED)
    assert [violation.field for violation in refused.value.violations] == [
        "approver",
        "approval_note",
        "approval_state",
    ]
    assert not (await script.listed())[0].HasField("approver")


async def test_pending_goes_with_waiting_for_approval_only(script: Somebody) -> None:
    run = await script.report()
    with pytest.raises(InvalidArgument, match="approval_state"):
        await script.patch(run.id, approval_state=PENDING)
    asked = await script.patch(run.id, approval_state=PENDING, status=AWAITING)
    assert (asked.status, asked.approval_state) == (AWAITING, PENDING)
    with pytest.raises(InvalidArgument, match="approval_state"):
        await script.patch(run.id, "approval_state")
    implied = await script.report()
    assert (await script.patch(implied.id, status=AWAITING)).approval_state == PENDING


async def test_clearing_what_is_empty_is_no_fault(script: Somebody) -> None:
    run = await script.report()
    after = await script.patch(run.id, "approver", "approval_note", "approval_state", "finished_at", status=SUCCEEDED)
    assert after.HasField("finished_at")


@one_engine
async def test_a_mask_names_only_what_can_change(script: Somebody) -> None:
    run = await script.report()
    for path in ("id", "request_id", "started_at", "status.x"):
        with pytest.raises(InvalidArgument, match="update_mask"):
            await script.patch(run.id, path)


async def test_a_status_cannot_be_cleared(script: Somebody) -> None:
    run = await script.report()
    with pytest.raises(InvalidArgument, match="status: cannot be cleared"):
        await script.patch(run.id, "status")


async def test_only_the_reporter_or_admin_changes_a_run(tasks: Tasks, script: Somebody) -> None:
    run = await script.report()
    with pytest.raises(PermissionDenied) as refused:
        await reporter(tasks).patch(run.id, status=SUCCEEDED)
    assert refused.value.reason == "RUN_OF_ANOTHER_AGENT"
    assert (await Somebody(tasks, "admin").patch(run.id, status=SUCCEEDED)).status == SUCCEEDED


async def test_a_run_of_baton_s_own_is_not_reported(tasks: Tasks, script: Somebody, person: Somebody) -> None:
    task = await tasks.create()
    queued, done = await tasks.run_now(task.id), await tasks.run_now(task.id)
    leased = {run.lease.run_id: run.lease for run in await tasks.lease(limit=2)}
    await tasks.finish(leased[done])
    admin = Somebody(tasks, "admin")
    for run_id in (queued, done):
        for change in (admin.patch(run_id, log_excerpt="x"), person.approve(run_id), admin.cancel(run_id)):
            with pytest.raises(FailedPrecondition) as refused:
                await change
            assert refused.value.reason == "RUN_NOT_REPORTED"


async def test_a_run_that_is_not_there_is_not_found(script: Somebody, person: Somebody) -> None:
    for change in (script.patch(new_id(), log_excerpt="x"), person.approve(new_id()), person.cancel(new_id())):
        with pytest.raises(NotFound) as refused:
            await change
        assert refused.value.reason == "RUN_NOT_FOUND"


@pytest.mark.parametrize(
    ("verb", "status", "state"),
    [("approve", SUCCEEDED, APPROVED), ("reject", FAILED, REJECTED), ("cancel", SKIPPED, CANCELLED)],
)
async def test_a_decision_ends_the_wait_and_is_audited(
    tasks: Tasks, script: Somebody, person: Somebody, verb: str, status: Any, state: Any
) -> None:
    run = await script.report(AWAITING)
    tasks.clock.advance(minutes=3)
    after = await getattr(person, verb)(run.id, note="as discussed")
    assert (after.status, after.approval_state, after.approver) == (status, state, person.id)
    assert (after.approval_note, after.duration_ms) == ("as discussed", 180_000)
    assert after.finished_at.ToDatetime(UTC) == tasks.clock.now()
    (entry,) = await audited_changes(tasks)
    assert re.fullmatch("([0-9a-f]{32})?", entry.pop("trace_id")), "empty where nothing is traced"
    names = {SUCCEEDED: "succeeded", FAILED: "failed", SKIPPED: "skipped"}
    decisions = {"approve": "approved", "reject": "rejected", "cancel": "cancelled"}
    expected = {
        "action": f"run.{verb}",
        "actor": person.id,
        "resource": f"run/{run.id}",
        "before": {"status": "awaiting_approval", "approval_state": "pending", "approver": None},
        "after": {"status": names[status], "approval_state": decisions[verb], "approver": person.id},
        "note": "as discussed",
        "request_id": "",
        "run_id": "",
    }
    assert expected.items() <= entry.items()
    assert all(re.fullmatch("[0-9a-f]{64}", entry[f"{which}_digest"]) for which in ("before", "after"))


async def test_a_decision_keeps_the_end_that_was_reported(script: Somebody, person: Somebody) -> None:
    run = await script.report(started_at="2026-03-01T02:30:00Z")
    await script.patch(run.id, status=AWAITING, finished_at="2026-03-01T02:31:00Z", duration_ms=59_900)
    after = await person.approve(run.id)
    assert (after.finished_at.ToJsonString(), after.duration_ms) == ("2026-03-01T02:31:00Z", 59_900)


async def test_calling_a_run_off_keeps_the_end_that_was_reported(tasks: Tasks, script: Somebody) -> None:
    run = await script.report(started_at="2026-03-01T02:30:00Z")
    await script.patch(run.id, status=AWAITING, finished_at="2026-03-01T02:31:00Z", duration_ms=59_900)
    await RunServiceStub(tasks.channel(["admin"])).CancelRun(CancelRunRequest(run_id=run.id))
    after = await tasks.run(run.id)
    assert (after.finished_at.ToJsonString(), after.duration_ms) == ("2026-03-01T02:31:00Z", 59_900)


async def test_a_duration_is_at_most_a_hundred_years(script: Somebody) -> None:
    run = await script.report()
    with pytest.raises(InvalidArgument) as refused:
        await script.patch(run.id, status=SUCCEEDED, duration_ms=2**63 - 1)
    assert [violation.field for violation in refused.value.violations] == ["duration_ms"]


async def test_a_rejection_is_the_error_of_the_run(tasks: Tasks, script: Somebody, person: Somebody) -> None:
    run = await script.report(AWAITING, task="infra.scale")
    await person.reject(run.id, note="too expensive")
    assert (await tasks.run(run.id)).error.message == "the approval was rejected: too expensive"


async def test_nobody_decides_on_their_own_run_but_to_cancel_it(tasks: Tasks) -> None:
    owner = Somebody(tasks, "admin")
    run = await owner.report(AWAITING)
    for decide in (owner.approve, owner.reject):
        with pytest.raises(PermissionDenied) as refused:
            await decide(run.id)
        assert refused.value.reason == "APPROVER_IS_REQUESTER"
    assert await audited_changes(tasks) == []
    assert (await owner.cancel(run.id)).status == SKIPPED


async def test_only_what_waits_is_decided(tasks: Tasks, script: Somebody, person: Somebody) -> None:
    for before in (QUEUED, RUNNING, SUCCEEDED):
        run = await script.report(before)
        for decide in (person.approve, person.reject, person.cancel):
            with pytest.raises(FailedPrecondition) as refused:
                await decide(run.id)
            assert refused.value.reason == "RUN_NOT_AWAITING_APPROVAL"
    assert await audited_changes(tasks) == []


async def test_a_run_is_decided_once_however_many_decide(tasks: Tasks, script: Somebody) -> None:
    people = [approver(tasks) for _ in range(6)]
    run = await script.report(AWAITING)
    verbs = [people[0].approve, people[1].reject, people[2].cancel, *(person.approve for person in people[3:])]
    answers = await asyncio.gather(*(decide(run.id) for decide in verbs), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refused) == 5
    assert {answer.reason for answer in refused if isinstance(answer, ServiceError)} == {"RUN_NOT_AWAITING_APPROVAL"}
    assert len(await audited_changes(tasks)) == 1


async def test_a_repeated_request_has_one_effect(tasks: Tasks, script: Somebody, person: Somebody) -> None:
    runs = [await script.report(AWAITING, request_id="key") for _ in range(2)]
    assert runs[0] == runs[1]
    assert await tasks.count(tables.runs) == 1
    request = ApproveLedgerRunRequest(id=runs[0].id, request_id="yes")
    answers = [await person.ledger.ApproveLedgerRun(request) for _ in range(2)]
    assert answers[0] == answers[1]
    assert [entry["request_id"] for entry in await audited_changes(tasks)] == ["yes"]


@one_engine
async def test_times_are_checked_and_every_faulty_one_named(script: Somebody) -> None:
    run = await script.report(started_at="2026-03-01T02:30:00+02:00")
    assert run.started_at.ToJsonString() == "2026-03-01T00:30:00Z"
    with pytest.raises(InvalidArgument) as refused:
        await script.patch(run.id, finished_at="9999-12-31", webhook_notified_at="soon")
    assert [violation.field for violation in refused.value.violations] == ["finished_at", "webhook_notified_at"]
    with pytest.raises(InvalidArgument, match="started_at"):
        await script.report(started_at="1969-12-31")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"task": ""}, "task"),
        ({"task": "x" * 65}, "task"),
        ({"run_id": ""}, "run_id"),
        ({"run_id": "x" * 65}, "run_id"),
        ({"status": 0}, "status"),
        ({"status": CANCELED}, "status"),
        ({"inputs": {"log": "x" * 1024 * 1024}}, "inputs"),
        ({"inputs": {"a": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}}, "inputs"),
    ],
    ids=["no task", "long task", "no batch", "long batch", "no status", "foreign status", "large", "deep"],
)
@one_engine
async def test_a_bad_report_is_refused_by_name(
    tasks: Tasks, script: Somebody, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await script.report(**fields)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await tasks.count(tables.runs) == 0


@one_engine
async def test_a_report_needs_its_scope(tasks: Tasks) -> None:
    stranger = Somebody(tasks, "runs:read", "tasks:write", "approvals:read")
    for change in (stranger.report(), stranger.patch(new_id()), stranger.approve(new_id()), stranger.cancel(new_id())):
        with pytest.raises(PermissionDenied) as refused:
            await change
        assert refused.value.reason == "SCOPE_MISSING"


class Counts(NoOpMeter):
    """A meter that remembers what was counted, or whose every count fails."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("counts")
        self.broken = broken
        self.found: Counter[str] = Counter()

    def create_counter(self, name: str, unit: str = "", description: str = "") -> "Count":
        return Count(self, name)


class Count(NoOpCounter):
    """One counter of that meter."""

    def __init__(self, meter: Counts, name: str) -> None:
        super().__init__(name)
        self._meter, self._name = meter, name

    def add(self, amount: float, attributes: object = None, context: object = None) -> None:
        if self._meter.broken:
            raise RuntimeError("the exporter is on fire")
        self._meter.found[self._name] += int(amount)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """What a service that is built from now on counts."""
    meter = Counts()
    monkeypatch.setattr(telemetry, "meter", lambda: meter)
    return meter


@one_engine
async def test_what_is_done_is_counted_once(counts: Counts, tasks: Tasks) -> None:
    script, person = reporter(tasks), approver(tasks)
    runs = [await script.report(AWAITING, request_id=key) for key in ("", "", "", "key", "key")]
    for decide, run in zip((person.approve, person.reject, person.cancel), runs, strict=False):
        await decide(run.id)
    await script.patch(runs[3].id, log_excerpt="x")
    with pytest.raises(FailedPrecondition):
        await person.approve(runs[0].id)
    assert {name: count for name, count in counts.found.items() if "ledger" in name} == {
        "baton.ledger.created": 4,
        "baton.ledger.updated": 1,
        "baton.ledger.approved": 1,
        "baton.ledger.rejected": 1,
        "baton.ledger.cancelled": 1,
    }


@one_engine
async def test_a_count_that_fails_fails_no_request(counts: Counts, tasks: Tasks) -> None:
    counts.broken = True
    script = reporter(tasks)
    run = await script.report(AWAITING)
    assert (await script.patch(run.id, log_excerpt="x")).log_excerpt == "x"
    assert (await approver(tasks).approve(run.id)).status == SUCCEEDED

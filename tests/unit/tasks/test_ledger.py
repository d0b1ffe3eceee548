"""What a report may make of a run, what a decision makes of it, and times as the ledger's clients write them."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from services.chassis.errors import InvalidArgument
from services.tasks.convert.ledger import instant, past_instant
from services.tasks.errors import RunFinished, RunNotAwaitingApproval, RunTransitionNotAllowed
from services.tasks.models.ledger import Decision, ReportedRun, amended, decided, settled
from services.tasks.models.run import LIVE, ApprovalState, RunStatus

NOW = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
QUEUED, RUNNING, AWAITING = RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.AWAITING_APPROVAL
SUCCEEDED, FAILED, SKIPPED = RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.SKIPPED
STATUSES = (QUEUED, RUNNING, AWAITING, SUCCEEDED, FAILED, SKIPPED)
ALLOWED = {(QUEUED, RUNNING), *product((QUEUED, RUNNING), (SUCCEEDED, FAILED, SKIPPED, AWAITING))}


def run(status: RunStatus = RUNNING, **fields: Any) -> ReportedRun:
    return settled(ReportedRun("id", "reporter", status, NOW - timedelta(minutes=1), **fields), NOW)


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
def test_a_report_changes_the_status_only_as_the_table_says(before: RunStatus, after: RunStatus) -> None:
    reported = run(before)
    if before is after:
        assert amended(reported, {"status": after}, NOW) == reported
    elif (before, after) in ALLOWED:
        assert amended(reported, {"status": after}, NOW).status is after
    else:
        with pytest.raises(RunTransitionNotAllowed if before in LIVE else RunFinished):
            amended(reported, {"status": after}, NOW)


@pytest.mark.parametrize("status", STATUSES)
def test_what_follows_from_a_status_is_there_whichever_way_it_came(status: RunStatus) -> None:
    found = run(status)
    assert (found.finished_at, found.duration_ms) == ((None, None) if status in LIVE else (NOW, 60_000))
    assert found.approval_state is (ApprovalState.PENDING if status is AWAITING else None)
    assert (found.error is not None) == (status is FAILED)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("decision", list(Decision))
def test_only_what_waits_is_decided(decision: Decision, status: RunStatus) -> None:
    if status is not AWAITING:
        with pytest.raises(RunNotAwaitingApproval):
            decided(run(status), decision, "somebody", "", NOW)
        return
    after = decided(run(status), decision, "somebody", "why", NOW)
    assert (after.status, after.approval_state) == decision.value
    assert (after.approver, after.approval_note, after.duration_ms) == ("somebody", "why", 60_000)
    with pytest.raises(RunNotAwaitingApproval):
        decided(after, Decision.APPROVE, "somebody", "", NOW)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"approver": "me"}, "approver"),
        ({"approval_note": "fine"}, "approval_note"),
        ({"approval_state": ApprovalState.APPROVED, "status": SUCCEEDED}, "approval_state"),
        ({"approval_state": ApprovalState.APPROVED, "status": AWAITING}, "approval_state"),
        ({"approval_state": ApprovalState.PENDING, "status": SUCCEEDED}, "approval_state"),
        ({"status": None}, "status"),
    ],
)
@pytest.mark.parametrize("before", [QUEUED, RUNNING, SUCCEEDED])
def test_what_belongs_to_who_decides_is_not_reported(before: RunStatus, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        amended(run(before), fields, NOW)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_duration_is_that_to_the_end_unless_it_was_told() -> None:
    later = NOW + timedelta(seconds=30)
    waiting = amended(run(), {"status": AWAITING, "finished_at": NOW}, later)
    assert (waiting.finished_at, waiting.duration_ms) == (NOW, 60_000)
    assert amended(waiting, {"finished_at": later}, later).duration_ms == 90_000
    assert amended(waiting, {"finished_at": None}, later).duration_ms is None
    assert amended(waiting, {"finished_at": later, "duration_ms": 7}, later).duration_ms == 7
    assert decided(waiting, Decision.APPROVE, "somebody", "", later).duration_ms == 60_000


def test_an_approval_that_is_asked_for_is_not_withdrawn_by_clearing() -> None:
    with pytest.raises(InvalidArgument, match="approval_state"):
        amended(run(AWAITING), {"approval_state": None}, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T02:30:00Z", NOW),
        ("2026-03-01t02:30:00z", NOW),
        ("2026-03-01T04:30:00+02:00", NOW),
        ("2026-02-28T21:00:00-0530", NOW),
        ("2026-03-01 02:30", NOW),
        ("2026-03-01T02:30:00.000", NOW),
        ("2026-03-01T02:30:00.1234567", NOW.replace(microsecond=123456)),
        ("2026-03-01", NOW.replace(hour=0, minute=0)),
    ],
)
def test_a_time_without_an_offset_is_in_utc_and_a_date_its_midnight(text: str, expected: datetime) -> None:
    assert instant(text, "since") == expected


NO_TIMES = (
    "yesterday", "1772330000", "2026-02-30", "2026-03-01T25:00", "2026-03-01T24:00:00", "20260301", "2026-W09-1",
    "2026-03-01T02:30:00 02:00", "2026-03-01T02:30:00+02", "2026-03-01T02", "0001-01-01T00:00:00+10:00", "",
    "2026-03-01T02:30:00Z\n", "\uff12026-03-01",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_refused_by_the_field_s_name(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        instant(text, "since")
    assert [violation.field for violation in refused.value.violations] == ["since"]


@pytest.mark.parametrize(
    ("text", "is_past"),
    [("1970-01-01", True), ("1969-12-31T23:59:59Z", False), ("2026-03-02T02:30:00Z", True),
     ("2026-03-02T02:30:00.000001Z", False)],
)  # fmt: skip
def test_what_has_happened_lies_between_1970_and_a_day_ahead(text: str, is_past: bool) -> None:
    if is_past:
        assert past_instant(text, "started_at", NOW) == instant(text, "started_at")
    else:
        with pytest.raises(InvalidArgument, match="started_at"):
            past_instant(text, "started_at", NOW)

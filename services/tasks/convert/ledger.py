"""The run ledger: times as its clients write them, reports, and runs under the names that it gives them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from baton.tasks.v1 import ledger_pb2, ledger_service_pb2, run_pb2

from services.chassis.clock import EPOCH
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.structs import from_struct, to_struct
from services.chassis.timestamps import to_timestamp
from services.tasks.convert.enums import from_enum, to_enum
from services.tasks.convert.run import run_status
from services.tasks.models.ledger import NewReportedRun
from services.tasks.models.run import ApprovalState, Run

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?:Z|([+-]\d\d):?(\d\d))?)?", re.ASCII | re.IGNORECASE
)
_NOT_A_TIME = "must be an ISO 8601 time such as 2026-03-01T02:30:00Z or 2026-03-01 (in a query, + is written %2B)"
# How far ahead of ours a reporter's clock may be.
_AHEAD = timedelta(days=1)


def new_run(request: ledger_service_pb2.CreateLedgerRunRequest, now: datetime) -> NewReportedRun:
    """The run that is reported. Raises InvalidArgument."""
    return NewReportedRun(
        task=request.task,
        batch_id=request.run_id,
        status=run_status(request.status),
        started_at=past_instant(request.started_at, "started_at", now) if request.started_at else None,
        inputs=from_struct(request.inputs),
        finished_at=past_instant(request.finished_at, "finished_at", now) if request.finished_at else None,
        duration_ms=request.duration_ms if request.HasField("duration_ms") else None,
        outputs_uri=request.outputs_uri,
        log_excerpt=request.log_excerpt,
    )


def changes(request: ledger_service_pb2.UpdateLedgerRunRequest, now: datetime) -> dict[str, Any]:
    """What a report says anew, by field; None clears. Raises InvalidArgument naming every fault."""
    found: dict[str, Any] = {}
    faults: list[Violation] = []
    given = _given(request)
    for name in list(request.update_mask.paths) or given:
        try:
            read = _reader(name)
            found[name] = read(request, name, now) if name in given else None
        except InvalidArgument as wrong:
            faults += wrong.violations
    if faults:
        raise InvalidArgument.of(faults)
    return found


def past_instant(text: str, field: str, now: datetime) -> datetime:
    """A time at which something has happened: since 1970, and no more than a day ahead of our clock."""
    found = instant(text, field)
    if not EPOCH <= found <= now + _AHEAD:
        raise InvalidArgument.of([Violation(field, "must lie between 1970 and tomorrow")])
    return found


def instant(text: str, field: str) -> datetime:
    """ISO 8601 as the earlier ledger took it: without an offset it is UTC, a date alone is its midnight."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        date, time, hours, minutes = match.groups()
        offset = f"{hours}:{minutes}" if hours else "+00:00"
        return datetime.fromisoformat(f"{date}T{time or '00:00'}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument.of([Violation(field, _NOT_A_TIME)]) from None


def ledger_message(run: Run) -> ledger_pb2.LedgerRun:
    """A run as the ledger shows it."""
    return ledger_pb2.LedgerRun(
        id=run.id,
        task=run.task,
        run_id=run.batch_id,
        status=to_enum(run.status, run_pb2.RunStatus),
        started_at=to_timestamp(run.started_at),
        finished_at=to_timestamp(run.finished_at),
        duration_ms=run.duration_ms,
        inputs=to_struct(run.inputs) if run.inputs else None,
        outputs_uri=run.outputs_uri or None,
        log_excerpt=run.log_excerpt or None,
        approval_state=to_enum(run.approval_state, run_pb2.ApprovalState) if run.approval_state else None,
        approver=run.approver or None,
        approval_note=run.approval_note or None,
        webhook_notified_at=to_timestamp(run.webhook_notified_at),
        created_at=to_timestamp(run.created_at),
        updated_at=to_timestamp(run.updated_at),
    )


def _given(request: ledger_service_pb2.UpdateLedgerRunRequest) -> list[str]:
    """The fields that have a value."""
    present = {field.name for field, _ in request.ListFields()}
    return [name for name in _READERS if name in present]


def _reader(name: str) -> Callable[[Any, str, datetime], Any]:
    if name not in _READERS:
        description = f"names {name!r}, which cannot be changed: use some of {', '.join(_READERS)}"
        raise InvalidArgument.of([Violation("update_mask", description)])
    return _READERS[name]


def _as_it_is(request: Any, name: str, now: datetime) -> Any:
    return getattr(request, name)


def _past_instant(request: Any, name: str, now: datetime) -> datetime:
    return past_instant(getattr(request, name), name, now)


_READERS: dict[str, Callable[[Any, str, datetime], Any]] = {
    "status": lambda request, name, now: run_status(request.status),
    "finished_at": _past_instant,
    "duration_ms": _as_it_is,
    "outputs_uri": _as_it_is,
    "log_excerpt": _as_it_is,
    "approval_state": lambda request, name, now: from_enum(
        ApprovalState, run_pb2.ApprovalState, request.approval_state
    ),
    "approver": _as_it_is,
    "approval_note": _as_it_is,
    "webhook_notified_at": _past_instant,
}

"""Which runs a request asks for."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from baton.tasks.v1 import run_service_pb2

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.timestamps import from_timestamp
from services.tasks.convert.run import run_status
from services.tasks.models.run import RunStatus
from services.tasks.models.run_filter import ENDED, RunFilter

_Request = (
    run_service_pb2.ListRunsRequest | run_service_pb2.ExportRunsRequest | run_service_pb2.ExportRunsAsNdjsonRequest
)
_SUCCEEDED = frozenset({RunStatus.SUCCEEDED})


def run_filter(request: _Request) -> RunFilter:
    """The request's filters. Raises InvalidArgument when two names of one time say different things."""
    return RunFilter(
        statuses=_statuses(request),
        task_ids=_unique(request.task_id),
        tasks=_unique(request.task),
        batch_ids=_unique(request.batch_id),
        roles=_unique(request.role),
        agent_ids=_unique(request.agent_id),
        event_ids=_unique(request.event_id),
        text=request.text,
        since=_time(request, "since", "start_time"),
        until=_time(request, "until", "end_time"),
    )


def _statuses(request: _Request) -> frozenset[RunStatus] | None:
    statuses = frozenset(run_status(status) for status in request.status) or None
    if not request.HasField("success"):
        return statuses
    ended = _SUCCEEDED if request.success else ENDED - _SUCCEEDED
    return ended if statuses is None else statuses & ended


def _time(request: Any, name: str, earlier_name: str) -> datetime | None:
    given = [from_timestamp(getattr(request, field)) for field in (name, earlier_name) if request.HasField(field)]
    if len(set(given)) > 1:
        description = f"is another time than {name}: give one of the two, which are names of the same"
        raise InvalidArgument.of([Violation(earlier_name, description)])
    return given[0] if given else None


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))

"""Watching runs."""

from baton.tasks.v1 import run_service_pb2 as pb

from services.chassis.ids import stored_id
from services.tasks.convert.run import run_message, run_status
from services.tasks.models.run_watch import ChangedRun, WatchFilter


def watch_filter(request: pb.WatchRunsRequest) -> WatchFilter:
    """Which runs the caller wants to be told of."""
    return WatchFilter(
        statuses=frozenset(run_status(status) for status in request.status),
        task_ids=frozenset(stored_id(task_id) for task_id in request.task_id),
        batch_ids=frozenset(request.batch_id),
        roles=frozenset(request.role),
    )


def changed_message(changed: ChangedRun) -> pb.WatchRunsResponse:
    """A run that has changed, as everybody is told of it."""
    return pb.WatchRunsResponse(position=changed.told_to, run=run_message(changed.run))

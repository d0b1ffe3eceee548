"""Runs that callers want, and what became of them."""

from baton.tasks.v1 import run_service_pb2, task_service_pb2

from services.chassis.call import Caller
from services.chassis.ids import stored_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp
from services.tasks.operations.start import Start, Started


def run_now(request: task_service_pb2.RunTaskNowRequest, caller: Caller, traceparent: str) -> Start:
    """The run that a caller wants at once."""
    return Start(stored_id(request.task_id), from_struct(request.params), caller, traceparent)


def run_now_response(started: Started) -> task_service_pb2.RunTaskNowResponse:
    """The answer to run_now, with the run's id under the earlier clients' name too."""
    happened = "stands for this one: it has the same dedupe key" if started.duplicate else "is queued"
    return task_service_pb2.RunTaskNowResponse(
        success=True,
        message=f"run {started.run_id} {happened}",
        details=task_service_pb2.RunTaskNowDetails(
            task_id=started.task_id,
            run_id=started.run_id,
            due_work_id=started.run_id,
            duplicate=started.duplicate,
        ),
    )


def wanted_run(message: run_service_pb2.NewRun, caller: Caller, traceparent: str) -> Start:
    """One run of a batch that a caller wants."""
    return Start(
        stored_id(message.task_id),
        from_struct(message.params),
        caller,
        traceparent,
        due_at=from_timestamp(message.due_at) if message.HasField("due_at") else None,
        priority=message.priority if message.HasField("priority") else None,
        batch_id=message.batch_id,
    )


def created_message(started: Started) -> run_service_pb2.CreatedRun:
    """What became of one run of a batch."""
    return run_service_pb2.CreatedRun(run_id=started.run_id, duplicate=started.duplicate)

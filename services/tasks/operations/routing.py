"""Handing work to whoever has a role."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.pipeline import definition
from services.tasks.models.task import NewTask, Task
from services.tasks.operations.new_run import MAX_PAYLOAD_BYTES, new_run
from services.tasks.operations.task import create_task
from services.tasks.store import queue, tables

# The payload and its parameters are around it.
_MAX_DEPTH = definition.MAX_DEPTH - 2


def route_task(
    connection: Connection,
    new: NewTask,
    traceparent: str,
    caller: Caller,
    clock: Clock,
    *,
    given: Mapping[str, str],
    request_id: str,
) -> Task:
    """Creates a task for a role and queues its one run.

    `given` has by which name the caller gave the parameters that can be too deep or too large, which raises
    InvalidArgument.
    """
    faults = _faults(new.payload, given)
    if faults:
        raise InvalidArgument.of(faults)
    task = create_task(connection, new, caller, clock)
    queue_routed(connection, task, traceparent, caller, clock, request_id=request_id)
    return task


def queue_routed(
    connection: Connection,
    task: Task,
    traceparent: str,
    caller: Caller,
    clock: Clock,
    *,
    handoff_id: str | None = None,
    request_id: str = "",
) -> None:
    """Queues the one run of a task that was made for a role, and has it audited."""
    run = new_run(task, due_at=clock.now(), traceparent=traceparent, handoff_id=handoff_id)
    queue.add_runs(connection, [run], clock.now())
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action="task.route",
        actor=caller.agent_id,
        resource=f"task/{task.id}",
        after={"target": task.role, "task_type": task.payload["params"]["task_type"], "run_id": run.id},
        request_id=request_id,
    )


def _faults(payload: Mapping[str, Any], given: Mapping[str, str]) -> list[Violation]:
    values = {field: payload["params"][name] for name, field in given.items()}
    faults = [
        Violation(field, f"is nested deeper than {_MAX_DEPTH} levels")
        for field, value in values.items()
        if definition.is_too_deep({"params": {"": value}})
    ]
    if not faults and (size := len(orjson.dumps(payload))) > MAX_PAYLOAD_BYTES:
        largest = max(values, key=lambda field: len(orjson.dumps(values[field])))
        faults.append(
            Violation(largest, f"makes the payload {size} bytes as JSON, at most {MAX_PAYLOAD_BYTES} are allowed")
        )
    return faults

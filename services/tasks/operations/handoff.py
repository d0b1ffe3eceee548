"""Work that workflows hand to a role: each hand-off is a task with one run."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from services.chassis.backoff import BackoffStrategy
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument
from services.chassis.ids import is_uuid
from services.chassis.outbox import Message, MessageRefused
from services.tasks.models.task import Misfire, NewTask, Overlap, ScheduleKind, TaskStatus
from services.tasks.operations.routing import queue_routed
from services.tasks.operations.task import create_task
from services.tasks.operations.task_status import change_status
from services.tasks.store import queue
from services.tasks.store import task as task_store

TASK_TYPE = "handoff"
"""What agents find as `task_type`."""
_TITLE_LENGTH = 200
_PRIORITY, _MAX_RETRIES = 5, 3


def take_handoffs(connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
    """Creates what is handed over, and calls off what is taken back; what comes twice is done once.

    Raises MessageRefused.
    """
    for message in messages:
        match message.payload:
            case {"id": str(handoff_id), "withdrawn": str(reason), "is_done": bool(is_done)} if is_uuid(handoff_id):
                _withdraw(connection, handoff_id, reason, is_done, clock)
            case {
                "id": str(handoff_id),
                "role": str(role),
                "description": str(description),
                "data": dict(data),
                "context": dict(context),
                "asked_by": str(asked_by),
                "traceparent": str(traceparent),
            } if is_uuid(handoff_id) and is_uuid(asked_by):
                new = _task(role, description, data, context)
                try:
                    _hand_over(connection, handoff_id, new, Caller(asked_by), traceparent[:55], clock)
                except InvalidArgument as refused:
                    raise MessageRefused(message.id, str(refused)) from None
            case _:
                raise MessageRefused(
                    message.id,
                    "has not the fields id, role, description, data, context, asked_by and traceparent, or id, "
                    "withdrawn and is_done",
                )


def roles_of(messages: Sequence[Message]) -> set[str]:
    """Whose workers may have something to do now."""
    return {role for message in messages if isinstance(role := message.payload.get("role"), str)}


def _hand_over(
    connection: Connection, handoff_id: str, new: NewTask, asker: Caller, traceparent: str, clock: Clock
) -> None:
    if task_store.get_task(connection, handoff_id) is None:
        task = create_task(connection, new, asker, clock, task_id=handoff_id)
        queue_routed(connection, task, traceparent, asker, clock, handoff_id=handoff_id)


def _withdraw(connection: Connection, handoff_id: str, reason: str, is_done: bool, clock: Clock) -> None:
    """Calls off what nobody has done; where it is done in another way, whoever works on it may end in peace."""
    task = task_store.lock_task(connection, handoff_id)
    live = queue.lock_live_of_task(connection, handoff_id) if task else []
    if task is None or not live or (is_done and any(row.lease_token for row in live)):
        return
    owner = Caller(task.created_by)
    # It makes no run, so nobody asks it for a trace.
    change_status(connection, handoff_id, TaskStatus.CANCELED, owner, lambda *_: "", clock, note=reason)


def _task(role: str, description: str, data: dict[str, Any], context: dict[str, Any]) -> NewTask:
    params = {"task_type": TASK_TYPE, "description": description, "data": data, "context": context}
    return NewTask(
        title=description[:_TITLE_LENGTH],
        description=description,
        schedule_kind=ScheduleKind.MANUAL,
        schedule_expr="",
        timezone="UTC",
        payload={"pipeline": [], "params": params},
        priority=_PRIORITY,
        dedupe_key="",
        dedupe_window_seconds=0,
        max_retries=_MAX_RETRIES,
        backoff_strategy=BackoffStrategy.EXPONENTIAL_JITTER,
        concurrency_key="",
        misfire=Misfire.RUN_ONCE,
        overlap=Overlap.ALLOW,
        role=role,
        created_by="",
    )

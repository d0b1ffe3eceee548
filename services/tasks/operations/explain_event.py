"""Why a task that waits for events makes no run."""

from collections.abc import Iterator
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis.clock import instant_text
from services.pipeline.cel import Subject, compile_filter
from services.pipeline.errors import ExpressionError
from services.tasks.models.blocker import Blocker
from services.tasks.models.event import Delivery, DeliveryOutcome
from services.tasks.models.task import Overlap, Task
from services.tasks.models.topic import example_of, is_reserved
from services.tasks.store import event as store
from services.tasks.store.statistics import latest_run


def event_blockers(
    connection: Connection, task: Task, *, has_run: bool, duplicate: Blocker | None
) -> Iterator[Blocker]:
    """What keeps an active task from making a run: the last event that made none, or that none has come since.

    `duplicate` says that no run is made right now, for an earlier one stands for the task's dedupe key.
    """
    last = store.last_delivery(connection, task.id)
    if last is None:
        yield _no_event(task)
        return
    if last.outcome is not DeliveryOutcome.RAN and not _has_run_since(connection, last):
        yield from _last_event_blockers(connection, task, last, duplicate)
    if not has_run:
        message = f"the task waits for the next event whose topic matches {task.schedule_expr!r}"
        evidence = {"topic": task.schedule_expr, "last_event_id": last.event_id, "last_outcome": last.outcome.value}
        yield Blocker("awaiting_event", message, evidence)


def _no_event(task: Task) -> Blocker:
    message = f"no event has come whose topic matches {task.schedule_expr!r}"
    evidence = {"topic": task.schedule_expr}
    topic = example_of(task.schedule_expr)
    if is_reserved(topic):
        return Blocker("awaiting_event", f"{message}: Baton publishes it when that happens", evidence)
    body = orjson.dumps({"topic": topic, "payload": {}}).decode()
    return Blocker("no_event", message, evidence, f"POST /events with {body}")


def _last_event_blockers(
    connection: Connection, task: Task, last: Delivery, duplicate: Blocker | None
) -> Iterator[Blocker]:
    """Why the last event made no run, as long as it would be so again."""
    evidence: dict[str, Any] = {
        "event_id": last.event_id,
        "decided_at": instant_text(last.decided_at),
        "reason": last.reason,
        "run_id": last.run_id,
    }
    message = f"event {last.event_id} made no run: {last.reason}"
    replay = f'POST /events/{last.event_id}/replay with {{"task_id": "{task.id}"}}'
    match last.outcome:
        case DeliveryOutcome.FILTERED | DeliveryOutcome.FILTER_ERROR if not _holds(connection, task, last):
            code = "event_filtered" if last.outcome is DeliveryOutcome.FILTERED else "event_filter_failed"
            yield Blocker(code, message, evidence, f"PUT /tasks/{task.id} with another event_filter")
        case DeliveryOutcome.DEPTH_EXCEEDED if _holds(connection, task, last):
            action = f"PUT /tasks/{task.id} with an event_filter that leaves out what its own runs lead to"
            yield Blocker("event_too_deep", message, evidence, action)
        case DeliveryOutcome.PAUSED:
            yield Blocker("event_missed", message, evidence, replay)
        case DeliveryOutcome.SKIPPED_OVERLAP if task.overlap is Overlap.SKIP:
            yield Blocker("overlap_skipped", message, evidence, f'PUT /tasks/{task.id} with {{"overlap": "queue"}}')
        case DeliveryOutcome.SUPPRESSED_DUPLICATE:
            still = duplicate.evidence if duplicate else {}
            yield Blocker("duplicate_suppressed", message, still | evidence, "" if duplicate else replay)


def _holds(connection: Connection, task: Task, last: Delivery) -> bool:
    """Whether the task's filter, as it is now, is true of the event."""
    if not task.event_filter:
        return True
    event = store.get_event(connection, last.event_id)
    if event is None:
        return last.outcome is DeliveryOutcome.DEPTH_EXCEEDED
    try:
        return compile_filter(task.event_filter).holds(Subject(event.topic, event.payload))
    except ExpressionError:
        return False


def _has_run_since(connection: Connection, last: Delivery) -> bool:
    newest = latest_run(connection, last.task_id)
    return newest is not None and newest.created_at >= last.decided_at and newest.id != last.run_id

"""Domain events of other contexts, as their outboxes bring them."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from baton.api.v1.inbox_service_pb2 import DeliverMessagesRequest, OutboxMessage
from baton.api.v1.inbox_service_pb2_grpc import InboxServiceStub

from services.chassis.errors import InvalidArgument, PermissionDenied
from services.chassis.ids import id_at
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from tests.integration.tasks.events import TOO_DEEP, dispatch_all, event_of, events_of, waiting_for
from tests.integration.tasks.lifecycle import runs_of
from tests.integration.tasks.running import Tasks, one_engine

TOPIC = "session.expired"


def inbox(tasks: Tasks, *scopes: str) -> InboxServiceStub:
    return InboxServiceStub(tasks.channel(scopes or ["messages:deliver"]))


def message(tasks: Tasks, topic: str = TOPIC, payload: Any = None, **fields: Any) -> OutboxMessage:
    """Told now, with an id of its own."""
    told = {"topic": topic, "payload": payload or {"session_id": "s1"}, "depth": 0, "traceparent": ""} | fields
    now = tasks.clock.now()
    return OutboxMessage(id=id_at(now), topic="event", payload=orjson.dumps(told), created_at=to_timestamp(now))


async def deliver(tasks: Tasks, *messages: OutboxMessage, source: str = "sessions") -> None:
    await inbox(tasks).DeliverMessages(DeliverMessagesRequest(source=source, messages=messages))


async def test_a_task_runs_that_waits_for_what_another_context_tells(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, TOPIC)
    told = message(tasks, payload={"session_id": "s7", "reason": "idle"})
    tasks.clock.advance(seconds=3)
    await deliver(tasks, told)
    await dispatch_all(tasks)
    (run,) = await runs_of(tasks, listener.id)
    assert run.event_id == told.id
    event = (await event_of(tasks, told.id)).event
    assert from_struct(event.payload) == {"session_id": "s7", "reason": "idle"}
    assert from_timestamp(event.published_at) == tasks.clock.now() - timedelta(seconds=3)


async def test_what_is_delivered_twice_happens_once(tasks: Tasks) -> None:
    listener = await waiting_for(tasks, "session.*")
    first, second = message(tasks), message(tasks, "session.created")
    await deliver(tasks, first)
    await deliver(tasks, first, second)
    await dispatch_all(tasks)
    await deliver(tasks, second)
    await asyncio.gather(*(deliver(tasks, first, third) for third in [message(tasks)] for _ in range(4)))
    await dispatch_all(tasks)
    assert len(await runs_of(tasks, listener.id)) == 3


async def test_what_nobody_waits_for_is_not_kept(tasks: Tasks) -> None:
    await deliver(tasks, message(tasks))
    assert await events_of(tasks) == []


async def test_a_loop_through_another_context_is_cut(tasks: Tasks) -> None:
    await waiting_for(tasks, TOPIC)
    deep = message(tasks, depth=9)
    await deliver(tasks, deep, message(tasks, depth=8))
    await dispatch_all(tasks)
    assert [one.outcome for one in (await event_of(tasks, deep.id)).deliveries] == [TOO_DEEP]


@pytest.mark.parametrize(
    ("source", "topic"),
    [
        ("sessions", "run.succeeded"),
        ("sessions", "workflow.advanced"),
        ("workflows", "session.expired"),
        ("tasks", "task.created"),
        ("sessions", "session"),
        ("sessions", "session.*"),
        ("sessions", "session." + "x" * 100),
        ("nobody", "order.created"),
    ],
)
@one_engine
async def test_each_context_tells_of_its_own(tasks: Tasks, source: str, topic: str) -> None:
    await waiting_for(tasks, "session.*")
    with pytest.raises(InvalidArgument) as refused:
        await deliver(tasks, message(tasks), message(tasks, topic), source=source)
    assert [fault.field for fault in refused.value.violations] == ["messages"]
    assert await events_of(tasks) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"payload": b"[]"}, "messages[0].payload"),
        ({"payload": b"{"}, "messages[0].payload"),
        ({"payload": b"{}"}, "messages"),
        ({"payload": orjson.dumps({"topic": TOPIC, "payload": [], "depth": 0, "traceparent": ""})}, "messages"),
        ({"topic": "audit"}, "messages[0].topic"),
        ({"id": "no uuid"}, "messages[0].id"),
    ],
)
@one_engine
async def test_a_bad_message_is_named_and_nothing_is_taken(tasks: Tasks, changes: dict[str, Any], field: str) -> None:
    await waiting_for(tasks, TOPIC)
    bad = message(tasks)
    for name, value in changes.items():
        setattr(bad, name, value)
    with pytest.raises(InvalidArgument) as refused:
        await deliver(tasks, bad, message(tasks))
    assert [fault.field for fault in refused.value.violations] == [field]
    assert await events_of(tasks) == []


@one_engine
async def test_it_is_for_services_alone(tasks: Tasks) -> None:
    with pytest.raises(PermissionDenied) as refused:
        await inbox(tasks, "events:publish", "tasks:write").DeliverMessages(
            DeliverMessagesRequest(source="sessions", messages=[message(tasks)])
        )
    assert refused.value.metadata == {"scope": "messages:deliver"}

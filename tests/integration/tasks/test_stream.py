"""Messages of a Redis Stream become events: each once, none before it is committed, and no bad one in the way."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.errors import InvalidArgument, Unavailable
from services.chassis.ids import new_id
from services.tasks import stream as consuming
from services.tasks.operations import event_stream
from services.tasks.store import tables
from services.tasks.stream import StreamConsumer
from tests.integration.tasks.audits import audited_changes
from tests.integration.tasks.events import dispatch_all, event_of, events_of, waiting_for
from tests.integration.tasks.running import Tasks
from tests.integration.tasks.streams import AGENT, consumed, consumer, numbers, step
from tests.support.valkey import GROUP, KEY, Stream, message
from tests.support.waiting import await_until


async def test_messages_become_events_and_runs_in_their_order(tasks: Tasks, server: Stream) -> None:
    task = await waiting_for(tasks, "order.*")
    server.add(*(message(number, source_agent_id=new_id()) for number in range(150)))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
        assert await numbers(tasks) == list(range(100)), "one batch"
        await step(tasks, one)
    assert await numbers(tasks) == list(range(150))
    assert server.pending() == []
    assert server.unread() == 0
    assert await tasks.count(tables.runs) == 150
    first = (await events_of(tasks, topic="order.created"))[0]
    answer = await event_of(tasks, first.id)
    assert (answer.event.source_agent_id, answer.event.published_by) == (AGENT, AGENT), "never from the message"
    assert [delivery.task_id for delivery in answer.deliveries] == [task.id]
    rows = [row for row in await audited_changes(tasks) if row["action"] == "event.publish"]
    assert [row["actor"] for row in rows] == [AGENT] * 150
    assert {row["after"]["triggered_runs"] for row in rows} == {1}


async def test_what_came_before_the_first_start_and_after_it_isconsumed(tasks: Tasks, server: Stream) -> None:
    server.add(message(1))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
        waiting = asyncio.create_task(step(tasks, one))
        await await_until(lambda: _is_blocked(server))
        server.add(message(2))
        await waiting
    assert await numbers(tasks) == [1, 2]


def _is_blocked(server: Stream) -> bool:
    with server.client() as client:
        return bool(client.info("clients")["blocked_clients"])


async def test_more_tasks_than_a_transaction_has_room_for_are_left_to_the_dispatcher(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.tasks.operations.dispatch.BATCH", 5)
    for _ in range(3):
        await waiting_for(tasks, "order.created")
    server.add(*map(message, range(4)))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
    assert await tasks.count(tables.runs) == 5
    assert await numbers(tasks) == [0, 1, 2, 3]
    await dispatch_all(tasks)
    assert await tasks.count(tables.runs) == 12


async def test_nothing_is_acknowledged_that_was_not_committed(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting_for(tasks, "order.created")
    server.add(*map(message, range(10)))
    async with consumer(tasks, server) as one:
        with monkeypatch.context() as patch:
            patch.setattr(consuming, "publish_incoming", _committing_fails)
            with pytest.raises(Unavailable):
                await step(tasks, one)
        assert len(server.pending()) == 10
        assert await numbers(tasks) == []
        await step(tasks, one)
        assert server.pending() == []
        await step(tasks, one)
    assert await numbers(tasks) == list(range(10))
    assert await tasks.count(tables.runs) == 10


def _committing_fails(connection: Connection, *arguments: Any) -> Any:
    event_stream.publish_incoming(connection, *arguments)
    raise Unavailable("the database cannot be reached right now", reason="DATABASE_UNAVAILABLE")


async def test_what_was_committed_and_not_acknowledged_is_not_published_twice(tasks: Tasks, server: Stream) -> None:
    await waiting_for(tasks, "order.created")
    server.add(*map(message, range(10)))
    async with consumer(tasks, server) as dead:
        # It was killed between the two.
        await dead._publish(await dead._take())
    assert len(server.pending()) == 10
    server.add(message(10))
    async with consumer(tasks, server, claim_after=0) as one:
        await step(tasks, one)
        await step(tasks, one)
    assert await numbers(tasks) == list(range(11))
    assert await tasks.count(tables.runs) == 11
    assert server.pending() == []


async def test_an_event_id_is_published_once_wherever_it_stands(tasks: Tasks, server: Stream) -> None:
    event_id = new_id()
    server.add(message(1, event_id=event_id), message(2, event_id=event_id.upper()), message(3))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
        server.add(message(4, event_id=event_id), message(5, event_id="not a UUID"), message(6, event_id="not a UUID"))
        await step(tasks, one)
    assert await numbers(tasks) == [1, 3, 5, 6]
    assert server.pending() == []


async def test_what_a_dead_consumer_held_is_claimed_once_it_has_been_idle(tasks: Tasks, server: Stream) -> None:
    server.add(*map(message, range(5)))
    async with consumer(tasks, server) as dead:
        await dead._take()
    server.add(message(5))
    async with consumer(tasks, server) as patient:
        await step(tasks, patient)
        assert await numbers(tasks) == [5], "it may still be alive"
    async with consumer(tasks, server, claim_after=0) as one:
        await step(tasks, one)
    assert sorted(await numbers(tasks)) == list(range(6))
    assert server.pending() == []


async def test_what_cannot_be_published_is_put_aside_and_stops_nobody(tasks: Tasks, server: Stream) -> None:
    bad = [
        message(1, topic="run.succeeded"),
        message(2, payload="no JSON"),
        message(3, payload=b'{"text": "' + b"x" * 300_000 + b'"}'),
        {"something": "else"},
    ]
    ids = server.add(message(0), *bad, message(4))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
    assert await numbers(tasks) == [0, 4]
    assert server.pending() == []
    rejected = server.rejected()
    assert [one["message_id"] for one in rejected] == ids[1:5]
    reserved, no_json, too_large, nothing = rejected
    assert reserved["reason"].startswith("topic: topics that begin with 'run' are Baton's own")
    assert (reserved["topic"], reserved["payload"]) == ("run.succeeded", '{"number":1}')
    assert no_json["reason"].startswith("payload: is not JSON")
    assert too_large["reason"].startswith("payload: is 300011 bytes")
    assert "payload" not in too_large, "it is where it was, in the stream"
    assert set(nothing) == {"message_id", "reason"}


async def test_what_the_database_refuses_spoils_only_itself(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(*map(message, range(5)))
    monkeypatch.setattr(consuming, "publish_incoming", _refusing(3, InvalidArgument("a value does not fit")))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
    assert sorted(await numbers(tasks)) == [0, 1, 2, 4]
    assert [one["reason"] for one in server.rejected()] == ["a value does not fit"]
    assert server.pending() == []


async def test_what_fails_for_another_reason_is_kept_and_tried_again(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = server.add(*map(message, range(5)))
    async with consumer(tasks, server, claim_after=0) as one:
        with monkeypatch.context() as patch:
            patch.setattr(consuming, "publish_incoming", _refusing(3, ZeroDivisionError()))
            assert await step(tasks, one) == 0.0, "only one of them failed"
        assert sorted(await numbers(tasks)) == [0, 1, 2, 4]
        assert [held["message_id"].decode() for held in server.pending()] == [ids[3]]
        await step(tasks, one)
    assert sorted(await numbers(tasks)) == list(range(5))
    assert server.rejected() == []
    assert server.pending() == []


async def test_when_everything_fails_there_is_a_rest(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("ERROR", logger="services.tasks.stream")
    server.add(*map(message, range(5)))
    async with consumer(tasks, server) as one:
        monkeypatch.setattr(consuming, "publish_incoming", _refusing(None, ZeroDivisionError()))
        assert await step(tasks, one) > 0
    assert len(server.pending()) == 5
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["stream_message_failed"]


def _refusing(number: int | None, error: Exception) -> Any:
    def publish(connection: Connection, incoming: Any, publisher: Caller, *arguments: Any) -> Any:
        published = event_stream.publish_incoming(connection, incoming, publisher, *arguments)
        if number is None or any(message.payload["number"] == number for message in incoming):
            raise error
        return published

    return publish


async def test_what_was_trimmed_while_it_was_pending_is_let_go(
    tasks: Tasks, server: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add(*map(message, range(3)))
    async with consumer(tasks, server) as one:
        with monkeypatch.context() as patch:
            patch.setattr(consuming, "publish_incoming", _committing_fails)
            with pytest.raises(Unavailable):
                await step(tasks, one)
        with server.client() as client:
            client.xtrim(KEY, maxlen=1, approximate=False)
        await step(tasks, one)
    assert await numbers(tasks) == [2]
    assert server.pending() == []


async def test_a_group_that_is_lost_is_made_anew_and_publishes_nothing_twice(tasks: Tasks, server: Stream) -> None:
    server.add(*map(message, range(3)))
    async with consumer(tasks, server) as one:
        await step(tasks, one)
        with server.client() as client:
            client.xgroup_destroy(KEY, GROUP)
        server.add(message(3))
        await await_until(lambda: consumed(one, tasks, [0, 1, 2, 3]))
    assert server.pending() == []


async def test_replicas_share_the_messages(tasks: Tasks, server: Stream) -> None:
    await waiting_for(tasks, "order.created")
    server.add(*map(message, range(600)))
    async with consumer(tasks, server) as one, consumer(tasks, server) as other:
        shares = await asyncio.gather(_drain(tasks, one, server), _drain(tasks, other, server))
    assert all(shares), "each of them had some"
    assert sorted(await numbers(tasks)) == list(range(600))
    assert await tasks.count(tables.runs) == 600
    assert server.pending() == []


async def _drain(tasks: Tasks, one: StreamConsumer, server: Stream) -> int:
    """Steps until nothing is left; answers how often."""
    steps = 0
    while server.unread():
        await step(tasks, one)
        steps += 1
    return steps


async def test_two_that_have_the_same_messages_make_one_event_of_each(tasks: Tasks, server: Stream) -> None:
    await waiting_for(tasks, "order.created")
    server.add(*map(message, range(50)))
    async with consumer(tasks, server) as slow, consumer(tasks, server, claim_after=0) as hasty:
        held = await slow._take()
        # Whichever comes second fails, or finds them published.
        await asyncio.gather(slow._publish(held), step(tasks, hasty))
        await step(tasks, hasty)
    assert sorted(await numbers(tasks)) == list(range(50))
    assert await tasks.count(tables.runs) == 50
    assert server.pending() == []

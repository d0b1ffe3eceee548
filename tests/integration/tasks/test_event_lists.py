"""Reading events: lists, topics, what came lately, what each did to tasks."""

from datetime import timedelta

import pytest
from baton.tasks.v1 import event_pb2
from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1.run_service_pb2 import ExportRunsAsNdjsonRequest, ExportRunsRequest, ListRunsRequest

from services.chassis.errors import InvalidArgument
from services.chassis.ids import new_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.tasks.store import event_list
from services.tasks.store import topic as topic_store
from tests.integration.tasks.events import add_waiting, events_of, publish, publisher, waiting_for
from tests.integration.tasks.lifecycle import cancel, pause
from tests.integration.tasks.running import Tasks, one_engine

TOPICS = ["order.created", "order.paid", "order.eu.paid", "invoice.sent"]


async def published(tasks: Tasks) -> list[str]:
    """Twelve events of four topics, of which one is waited for; their ids in order."""
    await waiting_for(tasks, "order.paid")
    return [(await publish(tasks, topic, {"n": number})).event_id for number in range(3) for topic in TOPICS]


async def test_events_are_listed_newest_first_and_without_payloads(tasks: Tasks) -> None:
    ids = await published(tasks)
    found = list((await publisher(tasks).ListEvents(pb.ListEventsRequest())).items)
    assert [event.id for event in found] == ids[::-1]
    assert not any(event.HasField("payload") for event in found)
    assert {event.payload_bytes for event in found} == {7}


@pytest.mark.parametrize("looked_at", [2000, 1], ids=["topic by topic", "all events"])
async def test_each_filter_finds_its_events(tasks: Tasks, looked_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_list, "_TOPICS_LOOKED_AT", looked_at)
    ids = await published(tasks)

    async def found(**filters: object) -> list[int]:
        return [ids.index(event.id) for event in await events_of(tasks, **filters)]

    assert await found(topic="order.paid") == [1, 5, 9]
    assert await found(topic="order.*") == [0, 1, 4, 5, 8, 9]
    assert await found(topic="order.**") == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert await found(topic="*.*.paid") == [2, 6, 10]
    assert await found(topic="nowhere.*") == await found(topic="nowhere") == []
    assert await found(matched=True) == [1, 5, 9]
    assert await found(topic="order.*", matched=False) == [0, 4, 8]
    assert await found(topic="order.paid", matched=False) == []
    sixth = (await events_of(tasks))[6].published_at
    assert await found(since=sixth) == [6, 7, 8, 9, 10, 11]
    assert await found(until=sixth, topic="order.**") == [0, 1, 2, 4, 5]
    later = to_timestamp(from_timestamp(sixth) + timedelta(microseconds=1))
    assert await found(since=later, until=later) == []
    assert (await found(since=later))[0] == 7


async def test_pages_follow_one_another_and_fit_only_their_filters(tasks: Tasks) -> None:
    ids, one = await published(tasks), publisher(tasks)
    seen, request = [], pb.ListEventsRequest(topic="order.**", limit=2)
    while True:
        page = await one.ListEvents(request)
        seen += [event.id for event in page.items]
        assert page.has_more == page.HasField("next_cursor")
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert seen == [event_id for index, event_id in enumerate(ids) if index % 4 != 3][::-1]
    request.topic = "order.*"
    with pytest.raises(InvalidArgument) as refused:
        await one.ListEvents(request)
    assert refused.value.reason == "CURSOR_INVALID"


@one_engine
async def test_what_is_no_pattern_is_refused_by_name(tasks: Tasks) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await publisher(tasks).ListEvents(pb.ListEventsRequest(topic="order.**.paid"))
    (violation,) = refused.value.violations
    assert (violation.field, "has ** before its end" in violation.description) == ("topic", True)


async def test_what_an_event_did_is_listed_by_task(tasks: Tasks) -> None:
    task_ids = [(await waiting_for(tasks, "order.*")).id for _ in range(5)]
    done, one = await publish(tasks), publisher(tasks)
    first = await one.ListEventDeliveries(pb.ListEventDeliveriesRequest(event_id=done.event_id, limit=3))
    assert [delivery.task_id for delivery in first.items] == sorted(task_ids)[:3]
    rest = await one.ListEventDeliveries(
        pb.ListEventDeliveriesRequest(event_id=done.event_id, limit=3, cursor=first.next_cursor)
    )
    assert [delivery.task_id for delivery in rest.items] == sorted(task_ids)[3:]
    assert (first.has_more, rest.has_more) == (True, False)
    assert [*first.items, *rest.items] == list(done.deliveries)
    with pytest.raises(InvalidArgument) as refused:
        await one.ListEventDeliveries(
            pb.ListEventDeliveriesRequest(event_id=new_id(), limit=3, cursor=first.next_cursor)
        )
    assert refused.value.reason == "CURSOR_INVALID"


async def test_what_an_event_did_is_listed_by_outcome(tasks: Tasks) -> None:
    told = [(await waiting_for(tasks, "order.*", event_filter=text)).id for text in ("event.no", "false", "event.no")]
    done, one = await publish(tasks), publisher(tasks)
    for outcome, expected in (
        (event_pb2.DELIVERY_OUTCOME_FILTER_ERROR, sorted([told[0], told[2]])),
        (event_pb2.DELIVERY_OUTCOME_FILTERED, [told[1]]),
        (event_pb2.DELIVERY_OUTCOME_RAN, []),
    ):
        request = pb.ListEventDeliveriesRequest(event_id=done.event_id, outcome=outcome, limit=1)
        seen: list[str] = []
        while True:
            page = await one.ListEventDeliveries(request)
            seen += [delivery.task_id for delivery in page.items]
            if not page.has_more:
                break
            request.cursor = page.next_cursor
        assert seen == expected


async def test_topics_are_those_that_active_tasks_wait_for(tasks: Tasks) -> None:
    two = [await waiting_for(tasks, "order.created") for _ in range(2)]
    paused, canceled = await waiting_for(tasks, "order.paid"), await waiting_for(tasks, "order.gone")
    pattern, other = await waiting_for(tasks, "order.**"), await waiting_for(tasks, "**")
    await pause(tasks, paused.id)
    await cancel(tasks, canceled.id)
    answer = await publisher(tasks).ListEventTopics(pb.ListEventTopicsRequest())
    assert {topic.topic: (topic.active_tasks, list(topic.task_ids)) for topic in answer.topics} == {
        "order.created": (2, sorted(task.id for task in two)),
        "order.**": (1, [pattern.id]),
        "**": (1, [other.id]),
    }
    assert (answer.total_topics, answer.has_more, list(answer.seen)) == (3, False, [])


async def test_topics_come_in_pages(tasks: Tasks) -> None:
    topics = ["a.b", "a.*", "a.*.c", "a.**", "b", "*", "**", "*.x"]
    for topic in topics:
        await waiting_for(tasks, topic)
    one, seen, request = publisher(tasks), [], pb.ListEventTopicsRequest(limit=3)
    while True:
        page = await one.ListEventTopics(request)
        assert page.total_topics == len(topics)
        seen += [topic.topic for topic in page.topics]
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    assert sorted(seen) == sorted(topics)


async def test_topics_that_events_had_lately_are_counted(tasks: Tasks) -> None:
    await publish(tasks, "old.one")
    tasks.clock.advance(hours=25)
    ids = await published(tasks)
    seen = (await publisher(tasks).ListEventTopics(pb.ListEventTopicsRequest())).seen
    assert {topic.topic: (topic.events, topic.last_event_id) for topic in seen} == {
        topic: (3, ids[8 + index]) for index, topic in enumerate(TOPICS)
    }
    newest = (await events_of(tasks, topic="invoice.sent"))[-1]
    assert {topic.topic: topic.last_published_at for topic in seen}["invoice.sent"] == newest.published_at


async def test_the_newest_events_are_read_as_the_earlier_scheduler_told_them(tasks: Tasks) -> None:
    ids = await published(tasks)
    answer = await publisher(tasks).ListRecentEvents(pb.ListRecentEventsRequest(count=3))
    assert answer.total_events == 3
    assert [event.event_id for event in answer.events] == [event.stream_id for event in answer.events] == ids[:-4:-1]
    newest = answer.events[0]
    assert (newest.topic, from_struct(newest.payload)) == ("invoice.sent", {"n": 2})
    assert newest.source_agent_id == newest.published_by != ""
    assert from_timestamp(newest.published_at) == tasks.clock.now()
    every = await publisher(tasks).ListRecentEvents(pb.ListRecentEventsRequest())
    assert every.total_events == 12


async def test_of_large_events_fewer_are_read(tasks: Tasks) -> None:
    for _ in range(20):
        await publish(tasks, payload={"a": "x" * 250_000})
    answer = await publisher(tasks).ListRecentEvents(pb.ListRecentEventsRequest(count=200))
    assert 10 < answer.total_events == len(answer.events) < 20


@pytest.mark.parametrize("count", [0, 201])
@one_engine
async def test_no_more_than_may_be_are_asked_for(tasks: Tasks, count: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await publisher(tasks).ListRecentEvents(pb.ListRecentEventsRequest(count=count))
    assert [violation.field for violation in refused.value.violations] == ["count"]


async def test_runs_are_found_by_the_event_that_made_them(tasks: Tasks) -> None:
    await waiting_for(tasks, "order.*", title="of an event")
    first, second = [await publish(tasks) for _ in range(2)]
    await tasks.run_now((await tasks.create()).id)
    (leased,) = await tasks.lease()
    await tasks.finish(leased.lease)
    for done in (first, second):
        (run,) = (await tasks.runs.ListRuns(ListRunsRequest(event_id=[done.event_id.upper()]))).items
        assert (run.id, run.event_id) == (done.deliveries[0].run_id, done.event_id)
    both = await tasks.runs.ListRuns(ListRunsRequest(event_id=[first.event_id, second.event_id]))
    assert ({run.event_id for run in both.items}, both.total) == ({first.event_id, second.event_id}, 2)
    ids = [first.event_id, second.event_id]
    export = tasks.runs.ExportRuns(ExportRunsRequest(event_id=ids, columns=["task", "event_id"]))
    csv = b"".join([chunk.data async for chunk in export]).decode().split("\r\n")
    assert sorted(csv[:-1]) == sorted(["task,event_id", *(f"of an event,{event_id}" for event_id in ids)])
    lines = tasks.runs.ExportRunsAsNdjson(ExportRunsAsNdjsonRequest(event_id=[first.event_id]))
    text = b"".join([chunk.data async for chunk in lines]).decode()
    assert (text.count("\n"), f'"event_id":"{first.event_id}"' in text) == (1, True)


async def test_topics_of_very_many_tasks_come_in_shorter_pages(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_store, "MAX_TASKS", 5)
    counts = {"a": 2, "b": 2, "c": 3, "d": 9, "e": 1}
    for name, count in counts.items():
        await tasks.database.transact(lambda connection, clock, n=name, c=count: add_waiting(connection, c, n))  # type: ignore[misc]
    one, pages, request = publisher(tasks), [], pb.ListEventTopicsRequest()
    while True:
        page = await one.ListEventTopics(request)
        pages.append([(found.topic, found.active_tasks) for found in page.topics])
        if not page.has_more:
            break
        request.cursor = page.next_cursor
    # Of `d` there are more than are read.
    assert pages == [[("a", 2), ("b", 2)], [("c", 3)], [("d", 6)], [("e", 1)]]

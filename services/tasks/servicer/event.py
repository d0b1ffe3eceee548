"""EventService."""

from datetime import datetime, timedelta
from typing import Any, TypeVar

from baton.tasks.v1 import event_service_pb2 as pb
from baton.tasks.v1 import event_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import telemetry
from services.chassis.call import caller
from services.chassis.clock import EPOCH, Clock
from services.chassis.database import Database, Work
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.paging import MAX_PAGE_BYTES, Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.tasks.convert import event as convert
from services.tasks.delivery_counts import DeliveryCounts
from services.tasks.models.event import Delivery, Event
from services.tasks.models.topic import pattern_fault
from services.tasks.operations import event as operations
from services.tasks.operations import retention
from services.tasks.operations.event import Published
from services.tasks.pruning import Pruner
from services.tasks.spans import new_linked_trace
from services.tasks.store import event as store
from services.tasks.store import topic as topics
from services.tasks.store.event_list import list_events
from services.tasks.store.topic import SeenTopic, Topic

_Context = ServicerContext[Any, Any]
_Publishing = pb.PublishEventRequest | pb.ReplayEventRequest
_Done = TypeVar("_Done", pb.PublishEventResponse, pb.ReplayEventResponse)
_DELIVERIES = 200
_RECENT = 50
_TOPICS, _SEEN_TOPICS, _COUNTED_TOPICS = 1000, 200, 10_001
_LATELY = timedelta(hours=24)
_MAX_AGE_HOURS = 24
_MILLISECOND = timedelta(milliseconds=1)


class EventServicer(rpc.EventServiceServicer):
    """Events, and what they did."""

    def __init__(
        self,
        database: Database,
        idempotency: Idempotency,
        cursors: Cursors,
        work_wakeup: Wakeup,
        dispatch_wakeup: Wakeup,
        counts: DeliveryCounts,
    ) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._work_wakeup = work_wakeup
        self._dispatch_wakeup = dispatch_wakeup
        self._counts = counts
        self._pruner = Pruner(database)

    async def PublishEvent(self, request: pb.PublishEventRequest, context: _Context) -> pb.PublishEventResponse:
        new, publisher, traceparent, key = (
            convert.new_event(request),
            caller(),
            telemetry.traceparent(),
            request.request_id,
        )

        def publish(connection: Connection, clock: Clock) -> Published:
            return operations.publish_event(
                connection, new, publisher, traceparent, new_linked_trace, clock, request_id=key
            )

        return await self._publish(request, pb.PublishEventResponse, publish)

    async def ReplayEvent(self, request: pb.ReplayEventRequest, context: _Context) -> pb.ReplayEventResponse:
        event_id, task_id, key = request.event_id, request.task_id, request.request_id
        replayer, traceparent = caller(), telemetry.traceparent()

        def replay(connection: Connection, clock: Clock) -> Published:
            return operations.replay_event(
                connection, event_id, task_id, replayer, traceparent, new_linked_trace, clock, request_id=key
            )

        return await self._publish(request, pb.ReplayEventResponse, replay)

    async def _publish(self, request: _Publishing, response_type: type[_Done], publish: Work[Published]) -> _Done:
        made: list[Published] = []

        def effect(connection: Connection, clock: Clock) -> _Done:
            # The last of several attempts, each of which may lose a race, is the one that counts.
            made[:] = [published := publish(connection, clock)]
            details = convert.published_message(published)
            return response_type(success=True, message=convert.told(published), details=details)

        response = await self._idempotency.once(request, response_type, effect)
        for published in made:
            self._counts.add(published.deliveries)
            if published.runs:
                self._work_wakeup.notify(*{run.role for run in published.runs})
            if not published.is_complete:
                self._dispatch_wakeup.notify()
        return response

    async def GetEvent(self, request: pb.GetEventRequest, context: _Context) -> pb.GetEventResponse:
        event_id = request.event_id

        def read(connection: Connection, clock: Clock) -> tuple[Event, list[Delivery]]:
            event = operations.get_event(connection, event_id)
            return event, store.list_deliveries(connection, event_id, limit=_DELIVERIES)

        event, deliveries = await self._database.read(read)
        return pb.GetEventResponse(
            event=convert.event_message(event, with_payload=True),
            deliveries=[convert.delivery_message(delivery) for delivery in deliveries],
        )

    async def ListEvents(self, request: pb.ListEventsRequest, context: _Context) -> pb.ListEventsResponse:
        if request.topic and (fault := pattern_fault(request.topic)):
            raise InvalidArgument.of([Violation("topic", fault)])
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.event_filter(request)
        before_id = str(position[0]) if position else None
        events = await self._database.read(
            lambda connection, clock: list_events(connection, wanted, limit=limit + 1, before_id=before_id)
        )
        items, cursor = self._cursors.page(request, events, convert.event_message, lambda event: event.id)
        return pb.ListEventsResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ListEventDeliveries(
        self, request: pb.ListEventDeliveriesRequest, context: _Context
    ) -> pb.ListEventDeliveriesResponse:
        position, limit, event_id = self._cursors.decode(request), page_limit(request), request.event_id
        after, outcome = str(position[0]) if position else None, convert.delivery_outcome(request)

        def read(connection: Connection, clock: Clock) -> list[Delivery]:
            operations.get_event(connection, event_id)
            return store.list_deliveries(connection, event_id, outcome, limit=limit + 1, after_task_id=after)

        items, cursor = self._cursors.page(
            request, await self._database.read(read), convert.delivery_message, lambda delivery: delivery.task_id
        )
        return pb.ListEventDeliveriesResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ListEventTopics(
        self, request: pb.ListEventTopicsRequest, context: _Context
    ) -> pb.ListEventTopicsResponse:
        position = self._cursors.decode(request)
        after = str(position[0]) if position else None
        limit = request.limit if request.HasField("limit") else _TOPICS

        def read(connection: Connection, clock: Clock) -> tuple[int, list[Topic], bool, list[SeenTopic]]:
            total = topics.count_topics(connection, _COUNTED_TOPICS)
            found, more = topics.list_topics(connection, limit=limit, after=after)
            seen = [] if after else topics.seen_topics(connection, clock.now() - _LATELY, _SEEN_TOPICS)
            return total, found, more, seen

        total, found, more, seen = await self._database.read(read)
        return pb.ListEventTopicsResponse(
            total_topics=total,
            topics=[convert.topic_message(topic) for topic in found],
            next_cursor=self._cursors.encode(request, [found[-1].pattern]) if more else None,
            has_more=more,
            seen=[convert.seen_message(topic) for topic in seen],
        )

    async def ListRecentEvents(
        self, request: pb.ListRecentEventsRequest, context: _Context
    ) -> pb.ListRecentEventsResponse:
        count = request.count if request.HasField("count") else _RECENT
        events = await self._database.read(
            lambda connection, clock: store.newest_events(connection, count, MAX_PAGE_BYTES)
        )
        return pb.ListRecentEventsResponse(
            total_events=len(events), events=[convert.recent_message(event) for event in events]
        )

    async def PruneEvents(self, request: pb.PruneEventsRequest, context: _Context) -> pb.PruneEventsResponse:
        admin, key = caller(), request.request_id
        hours = request.max_age_hours if request.HasField("max_age_hours") else _MAX_AGE_HOURS
        # A repeated request is answered as before, without deleting what has grown old since.
        if earlier := await self._idempotency.earlier_answer(request, pb.PruneEventsResponse):
            return earlier
        cutoff = await self._database.read(lambda connection, clock: retention.hours_ago(hours, clock))
        pruned = await self._pruner.prune_events(cutoff)

        def finish(connection: Connection, clock: Clock) -> pb.PruneEventsResponse:
            retention.audit_events(connection, cutoff, pruned, admin.agent_id, key, clock)
            details = _pruned_message(pruned.events, hours, cutoff, complete=pruned.complete)
            deleted = f"{pruned.events} {'event is' if pruned.events == 1 else 'events are'} deleted"
            return pb.PruneEventsResponse(success=True, message=deleted, details=details)

        return await self._idempotency.once(request, pb.PruneEventsResponse, finish)


def _pruned_message(events: int, hours: int, cutoff: datetime, *, complete: bool) -> pb.PrunedEvents:
    return pb.PrunedEvents(
        deleted_count=events,
        max_age_hours=hours,
        cutoff_timestamp=(cutoff - EPOCH) // _MILLISECOND,
        complete=complete,
    )

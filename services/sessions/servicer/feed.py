"""FeedService."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from baton.sessions.v1 import feed_service_pb2 as pb
from baton.sessions.v1 import feed_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis import call, telemetry
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import Unavailable
from services.chassis.paging import Cursors, page_limit
from services.chassis.wakeup import Wakeup
from services.sessions.convert import feed as convert
from services.sessions.models.feed import FeedEntry, FeedFilter
from services.sessions.operations import feed as operations
from services.sessions.store import feed as store

_Context = ServicerContext[Any, Any]
MAX_WATCHERS = 200
# A watcher who reads slowly holds these and no more: the next ones are read when these are taken.
_ENTRIES_AT_ONCE = 50
# Should a hint get lost, it is late by this.
POLL_SECONDS = 1.0


class FeedServicer(rpc.FeedServiceServicer):
    """What happens, merged. Those who watch are woken through `wakeup`."""

    def __init__(self, database: Database, cursors: Cursors, wakeup: Wakeup) -> None:
        self._database = database
        self._cursors = cursors
        self._wakeup = wakeup
        self._watchers = 0
        self._stopping = False
        self._watching = telemetry.meter().create_up_down_counter(
            metric_names.FEED_WATCHERS, description="callers who watch the feed"
        )

    def stop(self) -> None:
        """Ends what would otherwise go on for as long as anybody watches."""
        self._stopping = True
        self._wakeup.wake()

    async def ListFeed(self, request: pb.ListFeedRequest, context: _Context) -> pb.ListFeedResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.list_filter(request)
        before = int(position[0]) if position else None

        def read(connection: Connection, clock: Clock) -> list[FeedEntry]:
            return store.entries(connection, store.newest(connection, wanted, limit=limit + 1, before=before))

        entries = await self._database.read(read)
        items, cursor = self._cursors.page(request, entries, convert.entry_message, lambda entry: entry.position)
        return pb.ListFeedResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def GetEvents(self, request: pb.GetEventsRequest, context: _Context) -> pb.GetEventsResponse:
        limit, wanted = page_limit(request), convert.events_filter(request)

        def read(connection: Connection, clock: Clock) -> list[FeedEntry]:
            return store.entries(connection, store.newest(connection, wanted, limit=limit, offset=request.offset))

        entries = await self._database.read(read)
        # A page of large entries may hold fewer.
        newest, _ = self._cursors.page(pb.ListFeedRequest(limit=limit), entries, convert.entry_message, _position)
        return pb.GetEventsResponse(events=newest[::-1], count=len(newest))

    async def WatchFeed(self, request: pb.WatchFeedRequest, context: _Context) -> AsyncIterator[pb.WatchFeedResponse]:
        wanted = convert.watch_filter(request)
        after = request.after if request.HasField("after") else None
        with self._counted():
            begin = await self._database.read(lambda connection, clock: operations.begin_watch(connection, after))
            yield pb.WatchFeedResponse(position=begin.position, resync=begin.resync)
            async for message in self._told(wanted, begin.position):
                yield message

    async def _told(self, wanted: FeedFilter, position: int) -> AsyncIterator[pb.WatchFeedResponse]:
        while not self._stopping and (left := call.lasting_seconds_left()) > 0:
            ticket, reached = self._wakeup.ticket(), position
            look = await self._database.read(
                lambda connection, clock: operations.look(connection, wanted, after=reached, limit=_ENTRIES_AT_ONCE)  # noqa: B023
            )
            for entry in look.entries:
                yield pb.WatchFeedResponse(position=entry.position, entry=convert.entry_message(entry))
            position = look.reached
            if not look.has_more:
                await self._wakeup.wait(ticket, min(POLL_SECONDS, left))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._watchers >= MAX_WATCHERS:
            raise Unavailable(
                f"{MAX_WATCHERS} watch the feed here already: come again later",
                reason="TOO_MANY_WATCHERS",
                retry_after=5,
            )
        self._watchers += 1
        self._watching.add(1)
        try:
            yield
        finally:
            self._watchers -= 1
            self._watching.add(-1)


def _position(entry: FeedEntry) -> int:
    return entry.position

"""FeedService."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from baton.sessions.v1 import feed_service_pb2 as pb
from baton.sessions.v1 import feed_service_pb2_grpc as rpc
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services import metric_names
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.paging import Cursors, page_limit
from services.chassis.tail import Look, Tail
from services.chassis.wakeup import Wakeup
from services.sessions.convert import feed as convert
from services.sessions.models.feed import FeedEntry, FeedFilter
from services.sessions.operations import feed as operations
from services.sessions.store import feed as store
from services.sessions.store import positions

_Context = ServicerContext[Any, Any]
# A watcher who reads slowly holds these and no more: the next ones are read when these are taken.
_ENTRIES_AT_ONCE = 50


class _Told(NamedTuple):
    """An entry, and how everybody is told of it."""

    entry: FeedEntry
    message: pb.WatchFeedResponse


class FeedServicer(rpc.FeedServiceServicer):
    """What happens, merged. Those who watch are woken through `wakeup`."""

    def __init__(self, database: Database, cursors: Cursors, wakeup: Wakeup) -> None:
        self._database = database
        self._cursors = cursors
        self._tail: Tail[_Told] = Tail(
            self._end,
            lambda position: self._look(FeedFilter(), position),
            wakeup,
            metric=metric_names.FEED_WATCHERS,
        )

    def stop(self) -> None:
        """Ends what would otherwise go on for as long as anybody watches."""
        self._tail.stop()

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
        with self._tail.watched():
            begin = await self._database.read(lambda connection, clock: operations.begin_watch(connection, after))
            yield pb.WatchFeedResponse(position=begin.position, resync=begin.resync)
            told = self._tail.told(
                begin.position, lambda position: self._look(wanted, position), lambda told: wanted.matches(told.entry)
            )
            async for told_entry in told:
                yield told_entry.message

    async def _look(self, wanted: FeedFilter, position: int) -> Look[_Told]:
        look = await self._database.read(
            lambda connection, clock: operations.look(connection, wanted, after=position, limit=_ENTRIES_AT_ONCE)
        )
        return Look([_told(entry) for entry in look.entries], look.reached, look.has_more)

    async def _end(self) -> int:
        return await self._database.read(lambda connection, clock: positions.head(connection).position)


def _told(entry: FeedEntry) -> _Told:
    return _Told(entry, pb.WatchFeedResponse(position=entry.position, entry=convert.entry_message(entry)))


def _position(entry: FeedEntry) -> int:
    return entry.position

"""Watching the feed."""

from sqlalchemy import Connection

from services.chassis.errors import InvalidArgument, Violation
from services.sessions.models.feed import FeedFilter, FeedLook, WatchBegin
from services.sessions.store import feed as store
from services.sessions.store import positions


def begin_watch(connection: Connection, after: int | None) -> WatchBegin:
    """Where a watch begins: behind a position, or, without one, at the end. Raises InvalidArgument."""
    head = positions.head(connection)
    if after is None:
        return WatchBegin(head.position, resync=False)
    if after > head.position:
        description = f"is behind the feed's end, {head.position}: leave it out to begin there"
        raise InvalidArgument.of([Violation("after", description)])
    return WatchBegin(after, resync=after < head.pruned_to)


def look(connection: Connection, wanted: FeedFilter, *, after: int, limit: int) -> FeedLook:
    """Up to `limit` of the entries behind a position, oldest first."""
    # The end first: whatever is committed later is behind it.
    end = positions.head(connection).position
    if end <= after:
        return FeedLook([], after, has_more=False)
    places = store.following(connection, wanted, after=after, to=end, limit=limit)
    has_more = len(places) == limit
    return FeedLook(store.entries(connection, places), places[-1].position if has_more else end, has_more)

"""Watching the feed."""

from sqlalchemy import Connection

from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, ScopeMissing, Violation
from services.sessions.errors import TokenInvalid
from services.sessions.models.feed import FeedFilter, FeedLook, WatchBegin
from services.sessions.scopes import missing
from services.sessions.store import agent as agent_store
from services.sessions.store import feed as store
from services.sessions.store import positions
from services.sessions.store import token as token_store


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


def check_may_go_on(connection: Connection, watcher: Caller, scope: str, clock: Clock) -> None:
    """Raises TokenInvalid once the watcher's token, or its agent, has ended; ScopeMissing once it lost the scope."""
    agent = agent_store.find(connection, agent_id=watcher.agent_id)
    token = token_store.find_by_id(connection, token_id=watcher.token_id)
    if agent is None or agent.is_archived or token is None or not token.is_live(clock.now()):
        raise TokenInvalid
    if missing([scope], agent.scopes):
        raise ScopeMissing(scope)

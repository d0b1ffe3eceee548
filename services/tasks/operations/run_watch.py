"""Watching runs: where it begins, what there is to tell, and that changes are noted meanwhile."""

from datetime import timedelta
from operator import itemgetter

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.tasks.errors import ChangesForgotten
from services.tasks.models.run_watch import ChangedRun, ChangesLook, WatchBegin
from services.tasks.store import run_change as store
from services.tasks.store.history import runs_by_id

# Whoever watches says so again and again; it is enough to be heard each third time.
NOTED_FOR = timedelta(seconds=60)
_KEPT = 100_000


def begin_watch(connection: Connection, after: int | None, clock: Clock) -> WatchBegin:
    """Where a watch begins: behind a position or, without one, at the end. What changes from now on is noted."""
    since = keep_noting(connection, clock)
    end = max(since, store.end(connection))
    if after is None or after == end:
        return WatchBegin(end, resync=False)
    # What is behind the end was told by another database than this.
    is_known = since <= after < end
    return WatchBegin(after if is_known else end, resync=not is_known)


def keep_noting(connection: Connection, clock: Clock) -> int:
    """Has changes noted for a while more; answers since when nothing is missing."""
    watch, now = store.hold_watch(connection), clock.now()
    store.watch_until(connection, now + NOTED_FOR)
    if watch.until <= now:
        return store.begin_anew(connection)
    store.keep_newest(connection, _KEPT)
    return store.since(connection)


def is_noted_whole(connection: Connection, clock: Clock) -> bool:
    """Whether all that changes from now on is noted: what was under way when that began has ended."""
    return store.is_settled(connection, store.since(connection))


def look(connection: Connection, position: int, limit: int) -> ChangesLook:
    """The runs that have changed behind a position, each once, as they are now. Raises ChangesForgotten."""
    if store.since(connection) > position:
        raise ChangesForgotten
    changes, has_more = store.behind(connection, position, limit)
    # In the order of their last changes.
    places = {change.run_id: change.position for change in changes}
    runs = {run.id: run for run in runs_by_id(connection, list(places))}
    found = sorted(((place, runs[run_id]) for run_id, place in places.items() if run_id in runs), key=itemgetter(0))
    reached = changes[-1].position if changes else position
    told, told_to = [], position
    for index, (place, run) in enumerate(found):
        # Of those with one place only the last says that it was reached: who leaves before is told all of them again.
        if index + 1 == len(found) or found[index + 1][0] != place:
            told_to = place
        told.append(ChangedRun(run, told_to))
    return ChangesLook(told, reached, has_more)

"""The method of RunService that goes on and on."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from baton.tasks.v1 import run_service_pb2 as pb
from grpc.aio import ServicerContext

from services import metric_names
from services.chassis.database import Database
from services.chassis.tail import Look, Tail
from services.chassis.wakeup import Wakeup
from services.tasks.convert.run_watch import changed_message, watch_filter
from services.tasks.models.run import Run
from services.tasks.models.run_watch import WatchBegin
from services.tasks.operations import run_watch as operations
from services.tasks.store import run_change

_Context = ServicerContext[Any, Any]
_CHANGES_AT_ONCE = 200
# Nobody gives hints of what changes: that would cost those who work.
_POLL_SECONDS = 0.25
_KEEP_NOTING_SECONDS = operations.NOTED_FOR.total_seconds() / 3
_SETTLING_SECONDS = 0.01


class _Told(NamedTuple):
    """A run that has changed, and how everybody is told of it."""

    run: Run
    message: pb.WatchRunsResponse


class Watching:
    """Runs as they change, looked at once for all who watch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keep_at = 0.0
        self.tail: Tail[_Told] = Tail(
            self._end, self.look, Wakeup(), metric=metric_names.RUNS_WATCHERS, poll_seconds=_POLL_SECONDS
        )

    async def begin(self, after: int | None) -> WatchBegin:
        """Where a watch begins: behind a position or, without one, at the end."""
        begin = await self._database.transact(
            lambda connection, clock: operations.begin_watch(connection, after, clock)
        )
        await self._settle()
        return begin

    async def look(self, position: int) -> Look[_Told]:
        """What has changed behind a position."""
        found = await self._database.read(
            lambda connection, clock: operations.look(connection, position, _CHANGES_AT_ONCE)
        )
        told = [_Told(changed.run, changed_message(changed)) for changed in found.runs]
        return Look(told, found.reached, found.has_more)

    async def _settle(self) -> None:
        """Waits until what was under way when noting began, and may have noted nothing, has ended."""
        while not await self._database.read(operations.is_noted_whole):  # noqa: ASYNC110 - nobody tells of that
            await asyncio.sleep(_SETTLING_SECONDS)

    async def _end(self) -> int:
        if time.monotonic() >= self._keep_at:
            await self._database.transact(operations.keep_noting)
            self._keep_at = time.monotonic() + _KEEP_NOTING_SECONDS
        return await self._database.read(lambda connection, clock: run_change.end(connection))


class RunWatches:
    """Telling runs as they change."""

    _watching: Watching

    async def WatchRuns(self, request: pb.WatchRunsRequest, context: _Context) -> AsyncIterator[pb.WatchRunsResponse]:
        wanted, watching = watch_filter(request), self._watching
        with watching.tail.watched():
            begin = await watching.begin(request.after if request.HasField("after") else None)
            yield pb.WatchRunsResponse(position=begin.position, resync=begin.resync)
            told = watching.tail.told(begin.position, watching.look, lambda changed: wanted.matches(changed.run))
            async for changed in told:
                yield changed.message

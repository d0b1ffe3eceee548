"""The runs that this worker holds, and the moment at which it must let go of each by itself."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from baton.tasks.v1 import work_service_pb2

# Runs that are done and only wait for their report to be taken make room for others, but not without end.
MAX_UNREPORTED = 200
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTiming:
    """How leases are kept, in seconds. The service grants 30."""

    renew_every: float = 10.0
    """A third of a lease."""
    give_up_after: float = 20.0
    """Two thirds of a lease: without renewal for so long, the run is stopped before anybody else gets it.

    Both count from when the call was made that granted the lease, for nobody knows how long its answer took."""


class HeldRun:
    """One leased run and the task that works on it."""

    def __init__(self, lease: work_service_pb2.Lease, runs: "HeldRuns", asked_at: float) -> None:
        """`asked_at` is the loop's time at which the lease was asked for."""
        self.lease = lease
        self.lost = False
        """The lease is gone: nothing more may be reported."""
        self.ending = False
        """The outcome is known and on its way: there is nothing left to give back."""
        self.cancel_requested = False
        """Somebody called the run off: it is to stop before its next step."""
        self._asked_at = asked_at
        self._runs = runs
        self._task: asyncio.Task[None] | None = None

    @property
    def good_until(self) -> float:
        """The loop's time at which the lease must be given up unless it is renewed."""
        return self._asked_at + self._runs.timing.give_up_after

    @property
    def renew_at(self) -> float:
        """The loop's time from which on the lease should be renewed."""
        return self._asked_at + self._runs.timing.renew_every

    def start(self, task: asyncio.Task[None]) -> None:
        """The run is worked on by `task` from now on."""
        self._task = task
        self._runs.started(self, task)

    def end(self) -> None:
        """The work is done: another run may take its place while the outcome is reported."""
        self.ending = True
        self._runs.work_ended()

    def renewed(self, asked_at: float) -> None:
        """The lease was granted anew by a call that was made at `asked_at` (loop time)."""
        self._asked_at = asked_at

    def lose(self) -> None:
        """Stops the work at once, for good: somebody else may hold the run by now."""
        if not self.lost and self._task is not None and not self._task.done():
            _log.warning("lease_lost", extra={"run_id": self.lease.run_id, "attempt": self.lease.attempt})
            self.lost = True
            self._task.cancel()

    def release(self) -> None:
        """Stops the work so that the run is given back, unless its end is being reported already."""
        if not self.ending and self._task is not None:
            self._task.cancel()


class HeldRuns:
    """All runs held, at most `capacity` of them at work. Each is known by its id: the leases of one batch share their
    token."""

    def __init__(self, capacity: int, timing: LeaseTiming | None = None) -> None:
        self.timing = timing or LeaseTiming()
        self._capacity = capacity
        self._runs: dict[str, HeldRun] = {}
        # Also those of runs that are lost but have not stopped yet: they take room until they have.
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work = 0
        self._freed = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[HeldRun]:
        return iter(list(self._runs.values()))

    @property
    def free(self) -> int:
        return max(0, self._capacity - max(self._at_work, len(self._tasks) - MAX_UNREPORTED))

    async def wait_for_room(self) -> int:
        """Waits until at least one more run can be held; answers how many."""
        while not self.free:
            self._freed.clear()
            await self._freed.wait()
        return self.free

    def started(self, run: HeldRun, task: asyncio.Task[None]) -> None:
        """Holds a run. One that is held already was leased anew, so its earlier lease is lost."""
        earlier = self._runs.get(run.lease.run_id)
        if earlier is not None:
            earlier.lose()
        self._runs[run.lease.run_id] = run
        self._tasks.add(task)
        self._at_work += 1
        task.add_done_callback(lambda done: self._remove(run, done))
        if self._watch is None or run.good_until < self._watch.when():
            self._watch_from(run.good_until)

    def work_ended(self) -> None:
        """One of the runs at work makes room."""
        self._at_work -= 1
        self._freed.set()

    async def wait_until_empty(self, seconds: float) -> bool:
        """Whether all runs ended within `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return not self._tasks

    def _give_up_overdue(self) -> None:
        """One timer serves all: a lease that is held only gets longer, so none is overdue before the timer's run."""
        now = asyncio.get_running_loop().time()
        for run in self:
            if run.good_until <= now:
                run.lose()
        ends = [run.good_until for run in self._runs.values() if not run.lost]
        self._watch_from(min(ends) if ends else None)

    def _watch_from(self, when: float | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = None if when is None else asyncio.get_running_loop().call_at(when, self._give_up_overdue)

    def _remove(self, run: HeldRun, task: asyncio.Task[None]) -> None:
        if self._runs.get(run.lease.run_id) is run:
            del self._runs[run.lease.run_id]
        self._tasks.discard(task)
        if not run.ending:
            self._at_work -= 1
        self._freed.set()

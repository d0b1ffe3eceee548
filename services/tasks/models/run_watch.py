"""Watching runs as they change."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.tasks.models.run import Run, RunStatus


@dataclass(frozen=True)
class WatchFilter:
    """Values of one filter are OR, filters are AND; an empty one lets everything through."""

    statuses: frozenset[RunStatus] = frozenset()
    task_ids: frozenset[str] = frozenset()
    batch_ids: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()

    def matches(self, run: Run) -> bool:
        """Whether a run is wanted as it is now."""
        return (
            (not self.statuses or run.status in self.statuses)
            and (not self.task_ids or run.task_id in self.task_ids)
            and (not self.batch_ids or run.batch_id in self.batch_ids)
            and (not self.roles or run.role in self.roles)
        )


@dataclass(frozen=True)
class WatchBegin:
    """Where a watch begins."""

    position: int
    resync: bool
    """Whether some of what was asked for is not known any more."""


@dataclass(frozen=True)
class ChangedRun:
    """A run that has changed, as it is by now."""

    run: Run
    told_to: int
    """Who has been told of it has been told of everything up to here."""


@dataclass(frozen=True)
class ChangesLook:
    """What a look behind a position has found."""

    runs: Sequence[ChangedRun]
    reached: int
    has_more: bool

"""Which runs are asked for."""

from dataclasses import dataclass
from datetime import datetime

from services.tasks.models.run import LIVE, RunStatus

ENDED = frozenset(RunStatus) - LIVE


@dataclass(frozen=True)
class RunFilter:
    """Values of one filter are OR, filters are AND; an empty one lets everything through."""

    statuses: frozenset[RunStatus] | None = None
    """None for any. An empty set lets nothing through: it is what is left of filters that exclude each other."""
    task_ids: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    batch_ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    agent_ids: tuple[str, ...] = ()
    event_ids: tuple[str, ...] = ()
    text: str = ""
    """In the name, the log excerpt or the error's message, whatever the case; 3 characters or more."""
    since: datetime | None = None
    """Compared with the time in the run's id: when it was queued or, if reported, started."""
    until: datetime | None = None

    @property
    def live(self) -> frozenset[RunStatus]:
        """The statuses of live runs that pass."""
        return LIVE if self.statuses is None else LIVE & self.statuses

    @property
    def ended(self) -> frozenset[RunStatus]:
        """The statuses of finished runs that pass."""
        return ENDED if self.statuses is None else ENDED & self.statuses


EVERY_RUN = RunFilter()

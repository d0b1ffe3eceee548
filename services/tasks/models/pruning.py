"""What retention deletes."""

from dataclasses import dataclass
from enum import Enum


class Age(Enum):
    """Since when a run is as old as it is: the column that is compared."""

    FINISHED = "finished_at"
    STARTED = "started_at"
    """A run that never started has no age, and stays."""


@dataclass(frozen=True)
class Pruned:
    """How much was deleted, or would be."""

    runs: int = 0
    steps: int = 0
    occurrences: int = 0
    events: int = 0
    complete: bool = True
    """Whether nothing of that age is left."""

    def __add__(self, more: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + more.runs,
            self.steps + more.steps,
            self.occurrences + more.occurrences,
            self.events + more.events,
            self.complete and more.complete,
        )

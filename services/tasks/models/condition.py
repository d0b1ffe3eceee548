"""Conditions: what a task asks a tool again and again, and when the answer makes it fire."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.tasks.models.event import MAX_PAYLOAD_BYTES
from services.tasks.models.occurrence import Outcome
from services.tasks.models.task import Task

DEFAULT_EVERY_SECONDS = 60
DEFAULT_TIMEOUT_SECONDS = 30.0
LEASE = timedelta(seconds=60)
"""How long a lease lasts beyond the time that the tool may take."""
KEPT = 100
"""Evaluations of each task that are kept."""
MAX_RESULT_BYTES = MAX_PAYLOAD_BYTES
"""Bytes of JSON that a probe may tell: a run gets it as an event's payload."""


@dataclass(frozen=True)
class Condition:
    """What is asked, and how often."""

    uses: str
    with_: Mapping[str, Any]
    timeout_seconds: float
    every: timedelta
    cooldown: timedelta
    """How long the condition stays true before it fires again; zero for not at all."""

    @classmethod
    def stored(
        cls, uses: str, with_: dict[str, Any], timeout_seconds: float | None, every_seconds: int, cooldown_seconds: int
    ) -> dict[str, Any]:
        """The JSON that is kept of one."""
        probe: dict[str, Any] = {"uses": uses, "with": with_}
        if timeout_seconds is not None:
            probe["timeout_seconds"] = timeout_seconds
        return {"probe": probe, "every_seconds": every_seconds, "cooldown_seconds": cooldown_seconds}

    @classmethod
    def of(cls, task: Task) -> "Condition":
        """The condition of a task that has one."""
        assert task.condition is not None
        probe = task.condition["probe"]
        return cls(
            uses=probe["uses"],
            with_=probe["with"],
            timeout_seconds=probe.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS),
            every=timedelta(seconds=task.condition["every_seconds"]),
            cooldown=timedelta(seconds=task.condition["cooldown_seconds"]),
        )

    @property
    def lease(self) -> timedelta:
        """How long a worker holds the probe."""
        return LEASE + timedelta(seconds=self.timeout_seconds)

    def fires(self, *, holds: bool, before: bool | None, last_fired_at: datetime | None, now: datetime) -> bool:
        """Whether an evaluation fires, by what the one before it told: None when there was none that told anything."""
        if not holds:
            return False
        if not before:
            return True
        return bool(self.cooldown) and (last_fired_at is None or now - last_fired_at >= self.cooldown)


@dataclass(frozen=True)
class ProbeState:
    """How far the probing of a task has come."""

    task_id: str
    next_probe_at: datetime | None
    """When it is due, or its lease ends; None while it is not probed."""
    evaluations: int
    evaluations_before: int
    """How many there were before what is asked now was."""
    leased_at: datetime | None
    lease_token: str | None
    last_holds: bool | None
    """What was told last, whatever has failed since; None before, and after a change of what is asked."""
    last_fired_at: datetime | None


@dataclass(frozen=True)
class ProbeLease:
    """The proof that a worker holds a probe."""

    task_id: str
    token: str


@dataclass(frozen=True)
class LeasedProbe:
    """A probe that a worker now holds."""

    lease: ProbeLease
    number: int
    task: Task
    leased_at: datetime
    lag: timedelta
    """How long it was due."""


@dataclass(frozen=True)
class ProbeReport:
    """What a probe told."""

    lease: ProbeLease
    holds: bool | None = None
    """None when it told nothing."""
    result: Any = None
    """Only of a condition that holds."""
    excerpt: str = ""
    result_digest: str = ""
    error: str = ""
    released: bool = False
    """Given back undone."""


@dataclass(frozen=True)
class Evaluation:
    """One look at a condition."""

    task_id: str
    number: int
    evaluated_at: datetime
    holds: bool | None
    excerpt: str
    result_digest: str
    error: str
    outcome: Outcome | None = None
    """What became of the firing; None when it did not fire."""
    run_id: str | None = None
    """The run that was queued, or the one that was in the way."""

"""Templates: the states of a kind of work, and the moves between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

DEFAULT_MAX_RETRIES = 3


class TransitionKind(StrEnum):
    """What a move between two states means."""

    FORWARD = "forward"
    RETRY = "retry"
    ERROR = "error"
    RECOVER = "recover"


@dataclass(frozen=True)
class State:
    """One state of the work."""

    name: str
    owner_role: str = ""
    """The role that owns the work in this state; empty for nobody."""
    phase: str = ""
    """The phase whose result is produced here; empty for none."""
    terminal: bool = False
    description: str = ""
    handoff: tuple[str, ...] = ()
    """What of the result is handed over by name."""
    result_schema: Mapping[str, Any] | None = None
    """The JSON Schema of the result; None when anything will do."""
    deadline_seconds: int = 0
    """After how long the state is to be left; 0 for whenever."""
    ack_required: bool = False
    """Whether who is handed the work has to accept it first."""
    ack_seconds: int = 0
    """How long they have for that; 0 for as long as they like."""
    run_for_role: bool = False
    """Whether the owner finds the work as a run to lease."""

    def deadline(self, entered_at: datetime) -> datetime | None:
        """By when the state is to be left that was entered then."""
        return _after(entered_at, self.deadline_seconds)

    def ack_deadline(self, offered_at: datetime) -> datetime | None:
        """By when work is to be accepted that was offered then."""
        return _after(offered_at, self.ack_seconds)


def _after(moment: datetime, seconds: int) -> datetime | None:
    return moment + timedelta(seconds=seconds) if seconds else None


@dataclass(frozen=True)
class Transition:
    """One allowed move."""

    from_state: str
    to_state: str
    kind: TransitionKind


@dataclass(frozen=True)
class Definition:
    """One version of a template, as its author wrote it."""

    name: str
    version: int
    description: str
    initial_state: str
    states: tuple[State, ...]
    """In the order of the work."""
    transitions: tuple[Transition, ...]
    max_retries: int = DEFAULT_MAX_RETRIES
    """How often the work of one workflow may be sent back to be done again."""

    def state(self, name: str) -> State:
        """The state of that name, which must be one."""
        return next(state for state in self.states if state.name == name)

    def named(self, name: str) -> State | None:
        """The state that somebody means, in capitals or not."""
        return next((state for state in self.states if state.name == name.lower()), None)

    def place(self, name: str) -> int:
        """Where a state stands in the order of the work."""
        return next(place for place, state in enumerate(self.states) if state.name == name)

    def moves(self, from_state: str, *kinds: TransitionKind) -> list[Transition]:
        """The moves out of a state, of these kinds or of any."""
        return [one for one in self.transitions if one.from_state == from_state and (not kinds or one.kind in kinds)]

    @property
    def phases(self) -> tuple[str, ...]:
        """All phases, in the order of the work."""
        return tuple(dict.fromkeys(state.phase for state in self.states if state.phase))

    def next_role(self, name: str) -> str:
        """Who is expected in a state: its owner or, where nothing is produced and all goes on, that of the next one."""
        state = self.state(name)
        following = self.moves(name, TransitionKind.FORWARD)
        if state.terminal or state.phase or len(following) != 1:
            return "" if state.terminal else state.owner_role
        return self.state(following[0].to_state).owner_role


@dataclass(frozen=True)
class Template:
    """A definition that is stored, and never changes again."""

    definition: Definition
    created_at: datetime

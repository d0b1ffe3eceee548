"""Templates: the states of a kind of work, and the moves between them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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


@dataclass(frozen=True)
class Template:
    """A definition that is stored, and never changes again."""

    definition: Definition
    created_at: datetime

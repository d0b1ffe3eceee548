"""One use of a tool."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class User:
    """For whom tools are used, and in the course of what."""

    owner: str
    """The agent in whose name the work is done: the task's owner."""
    run_id: str = ""
    """The run that it is part of; empty for a probe, which is none."""


@dataclass(frozen=True)
class Use:
    """What a built-in tool is told beside its input."""

    user: User
    timeout: float
    """How many seconds it has, which it keeps to itself."""
    key: str
    """The call's idempotency key, the same on every attempt."""
    clean: Callable[[str], str] = str
    """Takes secrets out of a text. What is cut off goes through it before: nobody would know a part of a secret."""

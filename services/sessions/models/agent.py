"""Agents: who they are, and what they are at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

SYSTEM_ID = "00000000-0000-0000-0000-000000000001"
"""The agent that Baton itself is set up with."""


class AgentStatus(StrEnum):
    """What an agent is at."""

    IDLE = "idle"
    EXECUTING = "executing"
    WAITING = "waiting"
    BLOCKED = "blocked"
    COMPLETE = "complete"

    @property
    def followers(self) -> tuple["AgentStatus", ...]:
        """What can follow."""
        return _FOLLOWERS[self]


# Who waits or is blocked is at work; so nobody gets there, or is done, without having been executing.
_FOLLOWERS: Mapping[AgentStatus, tuple[AgentStatus, ...]] = {
    AgentStatus.IDLE: (AgentStatus.EXECUTING, AgentStatus.COMPLETE),
    AgentStatus.EXECUTING: (AgentStatus.IDLE, AgentStatus.WAITING, AgentStatus.BLOCKED, AgentStatus.COMPLETE),
    AgentStatus.WAITING: (AgentStatus.IDLE, AgentStatus.EXECUTING, AgentStatus.BLOCKED),
    AgentStatus.BLOCKED: (AgentStatus.IDLE, AgentStatus.EXECUTING),
    AgentStatus.COMPLETE: (AgentStatus.IDLE, AgentStatus.EXECUTING),
}


@dataclass(frozen=True, kw_only=True)
class NewAgent:
    """What a caller wants to make."""

    name: str
    scopes: tuple[str, ...]
    role: str = ""
    model: str = ""
    system_prompt: str = ""
    webhook_url: str | None = field(default=None, repr=False)
    working_dir: str = ""
    git_worktree: str = ""
    session_id: str | None = None
    orchestrator_agent_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_orchestrator: bool = False


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Somebody or something that calls Baton."""

    id: str
    name: str
    scopes: tuple[str, ...]
    """Sorted."""
    created_at: datetime
    updated_at: datetime
    role: str = ""
    """What the agent works as; empty for none."""
    model: str = ""
    system_prompt: str = ""
    webhook_url: str | None = field(default=None, repr=False)
    """It may hold a secret itself."""
    status: AgentStatus = AgentStatus.IDLE
    working_dir: str = ""
    git_worktree: str = ""
    session_id: str | None = None
    orchestrator_agent_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    archived_at: datetime | None = None
    version: int = 1
    """One more with every change but those of its usage."""
    is_orchestrator: bool = False

    @property
    def is_archived(self) -> bool:
        """Whether the agent may do nothing any more."""
        return self.archived_at is not None

    @property
    def told_at(self) -> str | None:
        """Where the agent is told of its runs; None for nowhere."""
        return None if self.is_archived else self.webhook_url


@dataclass(frozen=True)
class Holder:
    """An agent as far as its tokens and its secret are concerned, who are looked at often."""

    id: str
    scopes: tuple[str, ...]
    role: str
    archived_at: datetime | None

    @property
    def is_archived(self) -> bool:
        """Whether the agent may do nothing any more."""
        return self.archived_at is not None


@dataclass(frozen=True)
class AgentFilter:
    """Which agents are wanted; what is empty lets all through."""

    name: str = ""
    """A part of the name, in capitals or small letters."""
    scope: str = ""
    include_archived: bool = False


def merged(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with what is given: a name whose value is None is removed, names that are not given stay."""
    return {name: value for name, value in {**kept, **given}.items() if value is not None}

"""Logs and chat, merged by the order in which they can be seen."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.sessions.models.chat import ChatMessage
from services.sessions.models.log import AgentLog, SystemLog


class FeedSource(StrEnum):
    """What an entry of the feed is."""

    AGENT_LOG = "agent_log"
    SYSTEM_LOG = "system_log"
    ORCHESTRATOR_CHAT = "orchestrator_chat"


FeedEntry = AgentLog | SystemLog | ChatMessage


@dataclass(frozen=True)
class FeedFilter:
    """Which entries are wanted; what is empty lets all through."""

    sources: frozenset[FeedSource] = frozenset(FeedSource)
    agent_id: str = ""
    task_slug: str = ""
    """Only entries of agents' logs have one."""
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, entry: FeedEntry) -> bool:
        """Whether an entry is wanted, whenever it was written."""
        agents: list[str | None]
        match entry:
            case AgentLog():
                source, agents, slug = FeedSource.AGENT_LOG, [entry.agent_id], entry.task_slug
            case SystemLog():
                source, agents, slug = FeedSource.SYSTEM_LOG, [entry.agent_id], ""
            case ChatMessage():
                source, agents, slug = FeedSource.ORCHESTRATOR_CHAT, [entry.agent_id, entry.orchestrator_agent_id], ""
        return source in self.sources and self.agent_id in ("", *agents) and self.task_slug in ("", slug)


@dataclass(frozen=True)
class FeedHead:
    """How far the feed has come."""

    position: int
    """The last one that is taken; 0 for none."""
    recorded_at: datetime
    pruned_to: int
    """The last one that retention has deleted."""


@dataclass(frozen=True)
class Taken:
    """Positions for new entries, one after the other."""

    first_position: int
    recorded_at: datetime
    """No earlier than that of any entry before them."""


@dataclass(frozen=True)
class WatchBegin:
    """Where a watch begins."""

    position: int
    resync: bool
    """Whether some of what is behind it may have been deleted."""


@dataclass(frozen=True)
class FeedLook:
    """What a look at the feed has found behind a position."""

    entries: list[FeedEntry]
    reached: int
    """Nothing up to here was missed."""
    has_more: bool

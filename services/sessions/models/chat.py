"""What people, the orchestrator and its agents say to each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.chassis.errors import Violation


class ChatParty(StrEnum):
    """A side of a conversation."""

    USER = "user"
    ORCHESTRATOR = "orchestrator"
    AGENT = "agent"


@dataclass(frozen=True, kw_only=True)
class NewMessage:
    """What somebody wants to say."""

    message: str
    sender_type: ChatParty
    receiver_type: ChatParty
    orchestrator_agent_id: str | None = None
    """None for the one there is."""
    agent_id: str | None = None
    summary: str = ""
    metadata: Mapping[str, Any] | None = None

    def faults(self) -> Iterator[Violation]:
        """What is wrong with its sides."""
        if self.sender_type is self.receiver_type:
            yield Violation("receiver_type", f"is {self.receiver_type} like the sender: it must be another side")
        has_agent = ChatParty.AGENT in (self.sender_type, self.receiver_type)
        if has_agent and self.agent_id is None:
            yield Violation("agent_id", "is required when one of the two sides is an agent: say which one")
        if not has_agent and self.agent_id is not None:
            yield Violation("agent_id", "is given, but neither side is an agent: leave it out, or say which side is")


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """What somebody has said."""

    position: int
    id: str
    orchestrator_agent_id: str
    sender_type: ChatParty
    receiver_type: ChatParty
    agent_id: str | None
    message: str
    summary: str
    metadata: Mapping[str, Any] | None
    sent_by: str
    created_at: datetime


@dataclass(frozen=True)
class ChatFilter:
    """Which messages are wanted; what is empty lets all through."""

    orchestrator_agent_id: str = ""
    agent_id: str = ""
    sender_type: ChatParty | None = None
    receiver_type: ChatParty | None = None
    since: datetime | None = None
    until: datetime | None = None

"""What agents were told to do."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_SLUG_CHARACTERS = 50
_BETWEEN_WORDS = re.compile(r"[\W_]+")


class PromptAuthor(StrEnum):
    """Who has written a prompt."""

    ENGINEER = "engineer"
    ORCHESTRATOR_AGENT = "orchestrator_agent"


@dataclass(frozen=True, kw_only=True)
class NewPrompt:
    """What is to be recorded."""

    agent_id: str | None
    task_slug: str
    """Empty for one that is made of the text."""
    author: PromptAuthor
    prompt_text: str
    summary: str
    session_id: str


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What an agent was told."""

    id: str
    agent_id: str | None
    task_slug: str
    author: PromptAuthor
    prompt_text: str
    summary: str
    session_id: str
    recorded_by: str
    timestamp: datetime


@dataclass(frozen=True)
class PromptFilter:
    """Which prompts are wanted; what is empty lets all through."""

    agent_id: str = ""
    author: PromptAuthor | None = None
    task_slug: str = ""
    session_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


def slug_of(text: str, now: datetime) -> str:
    """A name for the piece of work that a prompt begins: the start of its text in small letters, and the time."""
    words = _BETWEEN_WORDS.sub("-", text[:_SLUG_CHARACTERS].lower()).strip("-")[:_SLUG_CHARACTERS]
    return f"{words or 'prompt'}-{now:%Y%m%d-%H%M%S}"

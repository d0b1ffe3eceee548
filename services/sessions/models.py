"""Agents, their tokens, and what a token grants."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Token:
    """What is kept of a token: everything but its secret."""

    id: str
    key_id: str
    agent_id: str
    secret_hash: bytes = field(repr=False)
    """SHA-256 of the whole token, 32 bytes."""
    scopes: tuple[str, ...]
    """Sorted; a subset of what the agent held when the token was minted."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether the token still opens anything."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True)
class MintedToken:
    """A new token together with its text, which exists nowhere else."""

    token: Token
    text: str = field(repr=False)


@dataclass(frozen=True)
class Grant:
    """What a valid token stands for, for a short while."""

    agent_id: str
    token_id: str
    scopes: tuple[str, ...]
    """Sorted; what the token and its agent both hold."""
    issued_at: datetime
    expires_at: datetime
    """In whole seconds."""
    role: str = ""
    """The agent's."""
    acting_agent_id: str = ""
    """Who acts for the agent; empty when it acts itself."""
    run_id: str = ""
    """The run in whose course somebody acts for the agent; empty for none."""

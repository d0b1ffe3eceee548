"""The tokens that agents call with, and what a token grants."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class TokenKind(StrEnum):
    """What a token is for."""

    MINTED = "minted"
    ACCESS = "access"
    REFRESH = "refresh"


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
    kind: TokenKind = TokenKind.MINTED
    family_id: str | None = None
    """Shared by the tokens that came of one use of a secret; None for a minted one."""
    replaced_by: str | None = None
    """The token that it was rotated into."""
    created_by: str | None = None
    last_used_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether the token still opens anything."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True)
class MintedToken:
    """A new token together with its text, which exists nowhere else."""

    token: Token
    text: str = field(repr=False)


@dataclass(frozen=True)
class ObtainedTokens:
    """What an agent gets for its secret, or for a refresh token."""

    access: MintedToken
    refresh: MintedToken


@dataclass(frozen=True)
class Rotation:
    """A token that goes on for a while beside the one it was rotated into."""

    previous: Token
    minted: MintedToken


@dataclass(frozen=True)
class TokenFilter:
    """Which tokens of an agent are wanted."""

    kind: TokenKind | None = None
    live_at: datetime | None = None
    """Only those that open something then."""


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

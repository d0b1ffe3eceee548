"""Webhooks, and what is delivered to them."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from services.tasks.models.event import Event, Origin

_DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAX_ATTEMPTS = len(_DELAYS) + 1
"""After so many failed attempts a delivery is dead."""
MAX_ERROR_LENGTH = 500
_JITTER = 0.2
_GONE = 410


AGENT_TOPICS = ("approval.*", "run.*")
"""What the webhook of an agent is for at first: of these events those about the agent's own runs."""


@dataclass(frozen=True)
class Subscriber:
    """A webhook that is for a topic."""

    webhook_id: str
    agent_id: str | None
    """Whose runs alone it is for."""

    def hears(self, event: Event) -> bool:
        """Whether the event is for it: what others publish in an agent's name is not about its runs."""
        if self.agent_id is None:
            return True
        return event.origin is Origin.BATON and event.payload.get("created_by") == self.agent_id


class DeliveryStatus(StrEnum):
    """How far a delivery has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class NewWebhook:
    """What a caller wants to make."""

    url: str
    topics: tuple[str, ...]
    description: str
    enabled: bool


@dataclass(frozen=True)
class Webhook:
    """Where events of some topics are sent. Its secrets are not here: what is not read is not shown."""

    id: str
    url: str
    topics: tuple[str, ...]
    description: str
    enabled: bool
    created_by: str
    created_at: datetime
    updated_at: datetime
    previous_secret_until: datetime | None = None
    agent_id: str | None = None
    """The agent whose `webhook_url` it is; None for one that somebody made here."""


@dataclass(frozen=True)
class WebhookDelivery:
    """One event for one webhook."""

    id: str
    webhook_id: str
    event_id: str
    topic: str
    status: DeliveryStatus
    attempts: int
    """Those that were begun, the one under way included."""
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str
    created_at: datetime
    delivered_at: datetime | None


@dataclass(frozen=True)
class Attempt:
    """What is about to be sent, by whoever holds the lease."""

    delivery_id: str
    webhook_id: str
    lease_token: str
    number: int
    """1 for the first one."""
    url: str = field(repr=False)
    """It may hold a secret itself."""
    secrets: tuple[str, ...] = field(repr=False)
    """What to sign with: the newest first."""
    topic: str
    payload: Mapping[str, Any] = field(repr=False)
    published_at: datetime


@dataclass(frozen=True)
class Answered:
    """What came of an attempt."""

    status: int | None
    """Of the answer; None when there was none."""
    error: str = ""
    """Why it failed; empty when it did not."""
    retry_after: timedelta = timedelta()
    """How long the receiver asked to be left alone."""

    @property
    def is_gone(self) -> bool:
        """Whether the receiver says that it wants nothing any more, ever."""
        return self.status == _GONE


def wait_after(attempts: int, retry_after: timedelta, jitter: Callable[[], float] = random.random) -> timedelta | None:
    """How long a delivery waits that has failed so often; None when it is given up.

    It is never less than `retry_after`, and up to a fifth longer than planned, so that receivers that come back are
    not asked by all at once. `jitter` answers a number between 0 and 1.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    return max(_DELAYS[attempts - 1] * (1 + _JITTER * jitter()), retry_after)

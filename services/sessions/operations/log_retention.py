"""Keeping logs for as long as they are wanted."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import EPOCH, Clock
from services.sessions.models.feed import FeedSource
from services.sessions.store import agent_log, positions, prompt, tables, usage

BATCH = 1000
_ACTOR = "baton.retention"
Prune = Callable[[Connection, datetime], int]
"""Deletes some of what is older than an instant, up to BATCH; answers how much."""


def _of(source: FeedSource) -> Prune:
    return lambda connection, cutoff: positions.delete_oldest(connection, source, before=cutoff, limit=BATCH)


KINDS: Mapping[str, Prune] = {
    "agent_logs": _of(FeedSource.AGENT_LOG),
    "system_logs": _of(FeedSource.SYSTEM_LOG),
    "chat_messages": _of(FeedSource.ORCHESTRATOR_CHAT),
    "prompts": lambda connection, cutoff: prompt.delete_oldest(connection, before=cutoff, limit=BATCH),
    "usage": lambda connection, cutoff: usage.delete_oldest(connection, before=cutoff, limit=BATCH),
    # Last: only those are forgotten that have no entries any more.
    "agent_log_heads": lambda connection, cutoff: agent_log.delete_unused_heads(connection, before=cutoff, limit=BATCH),
}
"""What is kept for so many days, in the order in which it is deleted."""


def prune_batch(connection: Connection, kind: str, days: int, clock: Clock) -> int:
    """Deletes up to BATCH things of a kind that are older than so many days, the oldest first; answers how many."""
    return KINDS[kind](connection, _cutoff(days, clock))


def audit_pruning(connection: Connection, pruned: Counter[str], days: int, clock: Clock) -> None:
    """Publishes how much was deleted."""
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action="logs.prune",
        actor=_ACTOR,
        resource="logs",
        after={"cutoff": _cutoff(days, clock).isoformat(), **pruned},
        note="retention",
    )


def _cutoff(days: int, clock: Clock) -> datetime:
    return max(clock.now() - timedelta(days=days), EPOCH)

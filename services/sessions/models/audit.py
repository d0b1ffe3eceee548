"""The audit as a chain: each entry is sealed together with the seal of the one before it.

The seal is HMAC-SHA256 (RFC 2104) over that seal, the place and all fields, with a key that is not in the database:
whoever changes, removes, adds or moves entries there cannot make the seals fit.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

BEGINNING = "0" * 64
"""What stands for the seal before the first entry."""


@dataclass(frozen=True)
class Action:
    """That somebody did something to something."""

    id: str
    occurred_at: datetime
    context: str
    actor: str
    action: str
    resource: str
    before: str | None
    """As JSON; None for nothing, and for more than is kept."""
    after: str | None
    before_digest: str
    after_digest: str
    note: str
    request_id: str
    trace_id: str
    run_id: str


@dataclass(frozen=True)
class External:
    """What happened outside of Baton, as somebody tells it."""

    source: str
    category: str
    action: str
    subject: str
    trace_id: str
    """Empty for the current one."""
    content: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Head:
    """A place in the chain: where it ends, or where a look at it begins."""

    sequence: int
    hash: str
    """The seal of the entry that is there."""

    def seal(self, key: bytes) -> str:
        """What proves that the chain ended here once."""
        return _hmac(["end", self.sequence, self.hash], key)


@dataclass(frozen=True)
class Entry:
    """An action in its place."""

    sequence: int
    recorded_at: datetime
    action: Action
    hash: str


@dataclass(frozen=True)
class Fault:
    """Something in the chain that is not as it was written."""

    sequence: int
    description: str


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are wanted; empty is any."""

    actor: str = ""
    action: str = ""
    """An action, or all of a noun: `run.*`."""
    resource: str = ""
    context: str = ""
    trace_id: str = ""
    run_id: str = ""
    request_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


def chained(head: Head, actions: Iterable[Action], recorded_at: datetime, key: bytes) -> Iterator[Entry]:
    """The actions as the entries that follow `head`."""
    sequence, previous = head.sequence, head.hash
    for action in actions:
        sequence += 1
        previous = _seal(previous, sequence, recorded_at, action, key)
        yield Entry(sequence, recorded_at, action, previous)


def faults(head: Head, entries: Iterable[Entry], key: bytes) -> Iterator[Fault]:
    """What is wrong with entries that should follow `head`, each thing at its own place.

    After a fault the chain is taken as it is, so that what comes behind it is judged by itself.
    """
    sequence, previous = head.sequence, head.hash
    for entry in entries:
        if entry.sequence != sequence + 1:
            missing = f"entry {sequence + 1} is missing"
            if entry.sequence > sequence + 2:
                missing = f"entries {sequence + 1} to {entry.sequence - 1} are missing"
            yield Fault(sequence + 1, missing)
        elif not hmac.compare_digest(entry.hash, _seal(previous, entry.sequence, entry.recorded_at, entry.action, key)):
            yield Fault(entry.sequence, "this entry, or the seal of the one before it, is not what was written")
        sequence, previous = entry.sequence, entry.hash


def _seal(previous: str, sequence: int, recorded_at: datetime, action: Action, key: bytes) -> str:
    fields: list[str | int | None] = [
        previous,
        sequence,
        recorded_at.isoformat(),
        action.id,
        action.occurred_at.isoformat(),
        action.context,
        action.actor,
        action.action,
        action.resource,
        action.before,
        action.after,
        action.before_digest,
        action.after_digest,
        action.note,
        action.request_id,
        action.trace_id,
        action.run_id,
    ]
    return _hmac(fields, key)


def _hmac(fields: list[str | int | None], key: bytes) -> str:
    return hmac.digest(key, orjson.dumps(fields), hashlib.sha256).hex()

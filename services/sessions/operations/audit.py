"""Adding to the audit, and checking it."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.outbox import Message
from services.sessions.models.audit import BEGINNING, Action, External, Fault, Head, chained, faults
from services.sessions.store import audit as store
from services.sessions.store import tables

_CHECKED = 2000
_MAX_METADATA_BYTES = 8 * 1024
_DIGITS = 64


def take_actions(connection: Connection, clock: Clock, source: str, messages: Sequence[Message], key: bytes) -> None:
    """Adds what the outbox of a context brings, but for what is there already."""
    head = store.lock_head(connection)
    known = store.known(connection, [message.id for message in messages])
    new = {message.id: _action(source, message) for message in messages if message.id not in known}
    if new:
        store.append(connection, list(chained(head, new.values(), clock.now(), key)), key)


def ingest(connection: Connection, clock: Clock, told: External, *, teller: str, request_id: str) -> str:
    """Publishes for the audit what an agent tells of elsewhere; answers the id that the entry will have.

    Raises InvalidArgument.
    """
    if (size := len(orjson.dumps(told.metadata))) > _MAX_METADATA_BYTES:
        description = f"is {size} bytes as JSON, at most {_MAX_METADATA_BYTES} are allowed"
        raise InvalidArgument.of([Violation("metadata", description)])
    return outbox.audit(
        connection,
        tables.outbox,
        clock,
        # So that nobody takes it for something that Baton has seen itself.
        action=f"external.{told.category}.{told.action}",
        actor=teller,
        resource=f"external/{told.subject}",
        after={"source": told.source, "content": told.content, "metadata": told.metadata},
        request_id=request_id,
        trace_id=told.trace_id,
    )


def _action(source: str, message: Message) -> Action:
    """What a message tells. Nothing is refused: an entry that is short of something says more than none."""
    told = message.payload
    return Action(
        id=message.id,
        occurred_at=message.created_at,
        context=source,
        actor=_text(told, "actor", 64),
        action=_text(told, "action", 100),
        resource=_text(told, "resource", 200),
        before=_json(told.get("before")),
        after=_json(told.get("after")),
        before_digest=_text(told, "before_digest", _DIGITS),
        after_digest=_text(told, "after_digest", _DIGITS),
        note=_text(told, "note", 4000),
        request_id=_text(told, "request_id", 255),
        trace_id=_text(told, "trace_id", 32),
        run_id=_text(told, "run_id", 36),
    )


def _text(told: dict[str, Any], name: str, longest: int) -> str:
    return str(told.get(name) or "")[:longest]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@dataclass(frozen=True)
class Checked:
    """What a look at some of the audit has shown."""

    faults: list[Fault]
    count: int
    """How many entries were looked at."""
    verified: Head
    """The last of them."""
    complete: bool
    """Nothing is behind them."""


def head_at(connection: Connection, sequence: int) -> Head:
    """From where to check what is behind a place; an entry that is missing there has an impossible seal."""
    return Head(sequence, (store.hash_at(connection, sequence) or "") if sequence else BEGINNING)


def check_next(connection: Connection, after: Head, key: bytes) -> Checked:
    """Checks the entries that follow a place; behind the last one, that the audit's end is where it is noted."""
    # The end first: entries that are added meanwhile are behind it.
    end, seal = store.head(connection)
    entries = store.entries_after(connection, after.sequence, _CHECKED)
    found = list(faults(after, entries, key))
    complete = len(entries) < _CHECKED
    places = [after, *(Head(entry.sequence, entry.hash) for entry in entries)]
    if complete and (end_fault := _end_fault(end, seal, places, key)):
        found.append(end_fault)
    return Checked(found, len(entries), places[-1], complete)


def check_known(connection: Connection, known: Head) -> Fault | None:
    """What is wrong with an entry whose seal is known from before; None when nothing is."""
    found = store.hash_at(connection, known.sequence) if known.sequence else BEGINNING
    if found == known.hash:
        return None
    return Fault(known.sequence, "the entry that was here had another seal" if found else "an entry was here")


def _end_fault(end: Head, seal: str, places: Sequence[Head], key: bytes) -> Fault | None:
    """What is wrong with the note of the audit's end, given the last places that there are."""
    last = places[-1].sequence
    if end.sequence > last:
        return Fault(last + 1, f"the audit ended with entry {end.sequence}: what is behind {last} is missing")
    if end.sequence and not hmac.compare_digest(seal, end.seal(key)):
        return Fault(end.sequence, "the note of the audit's end is not what was written")
    if end.sequence >= places[0].sequence and end not in places:
        return Fault(end.sequence, "the entry at the audit's end is not what was written")
    return None

"""The answers that repeated requests get: rows of one table, read and written inside the effect's own transaction."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message
from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, delete, select, text, tuple_

from services.chassis import call
from services.chassis.clock import Clock
from services.chassis.columns import Timestamp
from services.chassis.errors import Aborted, InvalidArgument, ServiceError, Violation
from services.chassis.upsert import upsert

DELETE_BATCH = 1000
_try_locks = text(
    "SELECT pg_try_advisory_xact_lock(number) "
    "FROM unnest(CAST(:numbers AS bigint[])) WITH ORDINALITY AS asked(number, place) ORDER BY place"
)
_Identity = tuple[str, str, str]
Answer = bytes | ServiceError | None
"""A response as it was given before, why there is none, or None: the question is new."""


def idempotency_table(metadata: MetaData) -> Table:
    """The table that a context keeps its answers in."""
    return Table(
        "idempotency_keys",
        metadata,
        Column("caller", String(64), primary_key=True),
        Column("method", String(200), primary_key=True),
        Column("key", String(255), primary_key=True),
        Column("fingerprint", LargeBinary(32), nullable=False),
        Column("response", LargeBinary, nullable=False),
        Column("created_at", Timestamp, nullable=False, index=True),
    )


@dataclass(frozen=True)
class Asked:
    """Who asked for what: there is one answer for each caller, method and key."""

    identity: _Identity
    fingerprint: bytes

    @classmethod
    def in_current_call(cls, request: Message) -> "Asked | None":
        """What the current call asks for; None when it bears no key."""
        key: str = request.request_id  # type: ignore[attr-defined]
        if not key:
            return None
        serving = call.current.get()
        assert serving is not None, "idempotency needs a call"
        fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        return cls((call.caller().agent_id, serving.method, key), fingerprint)

    @property
    def lock_number(self) -> int:
        digest = hashlib.sha256("\x00".join(self.identity).encode()).digest()
        return int.from_bytes(digest[:8], signed=True)


class Answers:
    """The remembered answers of one context, each for `ttl` after it was given."""

    def __init__(self, table: Table, ttl: timedelta) -> None:
        self._table = table
        self._ttl = ttl
        self._identity = (table.c.caller, table.c.method, table.c.key)

    def recall(self, connection: Connection, clock: Clock, asked: Sequence[Asked | None]) -> list[Answer]:
        """For each question the answer it got before; None also for one without a key.

        A new question is this transaction's to answer: until it ends, others with its key are in flight.
        """
        keyed = [one for one in asked if one is not None]
        if not keyed:
            return [None] * len(asked)
        in_flight = self._in_flight(connection, keyed)
        stored = self._stored(connection, clock, keyed)
        asked_twice = Counter(one.identity for one in keyed)
        answers: list[Answer] = []
        for one in asked:
            if one is None:
                answers.append(None)
            elif one.identity in in_flight or (one.identity not in stored and _is_repeated(one, asked_twice)):
                answers.append(_in_flight())
            else:
                answers.append(_answer(one, stored.get(one.identity)))
        return answers

    def keep(self, connection: Connection, clock: Clock, answers: Iterable[tuple[Asked, bytes]]) -> None:
        """Remembers answers; one past its time that is still there is replaced."""
        rows = [
            dict(zip(("caller", "method", "key"), asked.identity, strict=True))
            | {"fingerprint": asked.fingerprint, "response": response, "created_at": clock.now()}
            for asked, response in answers
        ]
        if rows:
            statement = upsert(connection, self._table)
            replaced = {name: statement.excluded[name] for name in ("fingerprint", "response", "created_at")}
            connection.execute(statement.on_conflict_do_update(index_elements=self._identity, set_=replaced), rows)

    def delete_expired(self, connection: Connection, clock: Clock) -> int:
        """Deletes up to DELETE_BATCH answers past their time; answers how many."""
        expired = select(*self._identity).where(self._table.c.created_at < clock.now() - self._ttl).limit(DELETE_BATCH)
        return connection.execute(delete(self._table).where(tuple_(*self._identity).in_(expired))).rowcount

    def _in_flight(self, connection: Connection, asked: Sequence[Asked]) -> set[_Identity]:
        # SQLite has one writer: there the transaction itself is the lock.
        if connection.dialect.name != "postgresql":
            return set()
        taken = connection.execute(_try_locks, {"numbers": [one.lock_number for one in asked]}).scalars()
        return {one.identity for one, got in zip(asked, taken, strict=True) if not got}

    def _stored(
        self, connection: Connection, clock: Clock, asked: Sequence[Asked]
    ) -> dict[_Identity, tuple[bytes, bytes]]:
        """Fingerprint and answer of those that have one."""
        columns = self._table.c
        rows = connection.execute(
            select(*self._identity, columns.fingerprint, columns.response).where(
                tuple_(*self._identity).in_([one.identity for one in asked]),
                columns.created_at > clock.now() - self._ttl,
            )
        )
        return {(row.caller, row.method, row.key): (row.fingerprint, row.response) for row in rows}


def _is_repeated(asked: Asked, left: Counter[_Identity]) -> bool:
    """Whether the same key was asked with before in this very transaction: the last of them may go on."""
    left[asked.identity] -= 1
    return left[asked.identity] > 0


def _in_flight() -> ServiceError:
    return Aborted(
        "a request with this key is still in progress: repeat it in a second to get its answer",
        reason="IDEMPOTENCY_KEY_IN_FLIGHT",
        retry_after=1,
    )


def _answer(asked: Asked, stored: tuple[bytes, bytes] | None) -> Answer:
    if stored is None:
        return None
    fingerprint, response = stored
    if fingerprint == asked.fingerprint:
        return response
    description = "was used for a different request: use a new key for every new request"
    return InvalidArgument(
        f"the idempotency key {description}",
        reason="IDEMPOTENCY_KEY_REUSED",
        violations=[Violation("request_id", description)],
    )

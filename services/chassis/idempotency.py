"""A repeated request has one effect and one answer.

The answer is stored with the caller, the method, the key and a fingerprint of the request, in the transaction
of the effect itself: either both are there or neither is.
"""

import hashlib
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    tuple_,
)

from services.chassis import call
from services.chassis.clock import Clock
from services.chassis.columns import Timestamp
from services.chassis.database import Database, Work
from services.chassis.errors import Aborted, InvalidArgument, Violation

_R = TypeVar("_R", bound=Message)
_DELETE_BATCH = 1000


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


class Idempotency:
    """The remembered answers of one context, each for `ttl_seconds` after it was given."""

    def __init__(self, database: Database, table: Table, ttl_seconds: int) -> None:
        self._database = database
        self._table = table
        self._ttl = timedelta(seconds=ttl_seconds)

    async def once(
        self, request: Message, response_type: type[_R], effect: Work[_R], *, answer_is_secret: bool = False
    ) -> _R:
        """Runs `effect` in a transaction, unless the caller's `request_id` was used before: then answers the same.

        A replayed answer is marked on the current call. Raises InvalidArgument `IDEMPOTENCY_KEY_REUSED` when the
        key was used for another request, Aborted `IDEMPOTENCY_KEY_IN_FLIGHT` while the first one runs. A secret
        answer is not stored: its request, repeated, is Aborted `ANSWER_NOT_REPEATABLE`.
        """
        key: str = request.request_id  # type: ignore[attr-defined]
        if not key:
            return await self._database.transact(effect)
        serving = call.current.get()
        assert serving is not None, "idempotency needs a call"
        identity = {"caller": call.caller().agent_id, "method": serving.method, "key": key}

        def remembered(connection: Connection, clock: Clock) -> tuple[_R, bool]:
            self._lock(connection, identity)
            stored = self._find(connection, clock, identity)
            if stored is None:
                response = effect(connection, clock)
                answer = b"" if answer_is_secret else response.SerializeToString()
                self._store(connection, clock, identity, _fingerprint(request), answer)
                return response, False
            _refuse_other_request(stored.fingerprint, _fingerprint(request))
            if answer_is_secret:
                raise Aborted("this was done before, and its answer is shown only once", reason="ANSWER_NOT_REPEATABLE")
            return response_type.FromString(stored.response), True

        response, serving.replayed = await self._database.transact(remembered)
        return response

    async def forget_expired(self) -> float:
        """Deletes answers past their time, a thousand at once; a step for `loops.forever`."""
        deleted = await self._database.transact(self._delete_expired)
        return 0.1 if deleted == _DELETE_BATCH else 600.0

    def _lock(self, connection: Connection, identity: dict[str, str]) -> None:
        # SQLite has one writer: there the transaction itself is the lock.
        if self._database.is_postgres:
            digest = hashlib.sha256("\x00".join(identity.values()).encode()).digest()
            number = int.from_bytes(digest[:8], signed=True)
            if not connection.execute(select(func.pg_try_advisory_xact_lock(number))).scalar_one():
                raise Aborted(
                    "a request with this key is still in progress", reason="IDEMPOTENCY_KEY_IN_FLIGHT", retry_after=1
                )

    def _find(self, connection: Connection, clock: Clock, identity: dict[str, str]) -> Row[Any] | None:
        columns = self._table.c
        return connection.execute(
            select(columns.fingerprint, columns.response).where(
                *(columns[name] == value for name, value in identity.items()),
                columns.created_at > clock.now() - self._ttl,
            )
        ).one_or_none()

    def _store(
        self, connection: Connection, clock: Clock, identity: dict[str, str], fingerprint: bytes, response: bytes
    ) -> None:
        # An answer past its time may still be there: it is replaced.
        expired = (self._table.c[name] == value for name, value in identity.items())
        connection.execute(delete(self._table).where(*expired))
        connection.execute(
            insert(self._table).values(fingerprint=fingerprint, response=response, created_at=clock.now(), **identity)
        )

    def _delete_expired(self, connection: Connection, clock: Clock) -> int:
        columns = self._table.c
        key = (columns.caller, columns.method, columns.key)
        expired = select(*key).where(columns.created_at < clock.now() - self._ttl).limit(_DELETE_BATCH)
        return connection.execute(delete(self._table).where(tuple_(*key).in_(expired))).rowcount


def _refuse_other_request(stored: bytes, repeated: bytes) -> None:
    if stored != repeated:
        description = "was used for a different request: use a new key for every new request"
        raise InvalidArgument(
            f"the idempotency key {description}",
            reason="IDEMPOTENCY_KEY_REUSED",
            violations=[Violation("request_id", description)],
        )


def _fingerprint(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()

"""The loop that publishes the messages of a Redis Stream: acknowledged only once they are committed.

The server needs to be Redis 6.2 or newer, or Valkey. What it has delivered and nobody has acknowledged, it keeps: after
a failure, or a death, it is read again, and what was committed before is told from its key.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from valkey.asyncio import Valkey
from valkey.asyncio.connection import parse_url
from valkey.exceptions import ResponseError, ValkeyError

from services import metric_names
from services.chassis import telemetry
from services.chassis.call import Caller
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.errors import Aborted, DeadlineExceeded, InvalidArgument, Unavailable
from services.chassis.ids import new_id
from services.chassis.wakeup import Wakeup
from services.tasks.convert import stream as convert
from services.tasks.models.event import MAX_PAYLOAD_BYTES, Incoming
from services.tasks.operations.event import Published
from services.tasks.operations.event_stream import publish_incoming
from services.tasks.spans import new_linked_trace, new_message_trace

_log = logging.getLogger(__name__)
_BATCH = 100
_BLOCK_SECONDS = 1.0
_CONNECT_SECONDS, _ANSWER_SECONDS = 3.0, 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 30.0
_FAILED_PAUSE_SECONDS = 5.0
_KEPT_REJECTED = 10_000
_SCOPES = frozenset({"events:publish"})
_ENCRYPTED = ("rediss://", "valkeys://")
# What says nothing of any one message, and would be the same for each of them alone.
_ABOUT_ALL = (Unavailable, DeadlineExceeded, Aborted)


@dataclass(frozen=True)
class Source:
    """Where messages come from, and whose they are."""

    url: str
    """It may hold a password: it is never logged."""
    key: str
    group: str
    agent_id: str
    claim_after: float = 60.0
    """After how many seconds a consumer that has not acknowledged what it was given is taken for dead."""

    @property
    def rejected_key(self) -> str:
        """The stream of messages that could not be published."""
        return f"{self.key}:rejected"


@dataclass(frozen=True)
class _Message:
    id: str
    fields: dict[bytes, bytes]


@dataclass
class _Settled:
    """What became of a batch. What has failed stays with the server, and is tried again as if its consumer had died."""

    done: list[str] = field(default_factory=list)
    rejected: list[tuple[_Message, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def came_to_nothing(self) -> bool:
        """Whether all of it failed: then it is hardly the messages that are at fault."""
        return bool(self.failed) and not self.done and not self.rejected


class StreamConsumer:
    """One consumer of the group, with a name of its own: every replica has one, and they share the messages."""

    def __init__(self, database: Database, source: Source, work_wakeup: Wakeup, dispatch_wakeup: Wakeup) -> None:
        self._database, self._source = database, source
        self._work_wakeup, self._dispatch_wakeup = work_wakeup, dispatch_wakeup
        self._client = _client(source.url)
        self.name = new_id()
        self._publisher = Caller(source.agent_id, _SCOPES)
        self._has_group = False
        # Behind which message to read again what was delivered to this consumer; None for what is new.
        self._again_after: str | None = None
        self._claim_from: str = "0-0"
        self._is_away: bool | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        meter = telemetry.meter()
        self._messages = meter.create_counter(
            metric_names.STREAM_MESSAGES, description="messages of the stream of events, by what became of them"
        )
        self._connected = meter.create_gauge(
            metric_names.STREAM_CONNECTED, description="whether the stream of events can be read: 1 or 0"
        )

    async def step(self) -> float:
        """Publishes one batch, or waits a second for one; answers how long to rest: not at all while all is well."""
        finished, rest = False, 0.0
        try:
            if messages := await self._take():
                settled = await self._publish(messages)
                await self._settle(settled)
                rest = _FAILED_PAUSE_SECONDS if settled.came_to_nothing else 0.0
            self._tell(None)
            finished = True
        except ValkeyError as error:
            self._has_group = False
            return self._tell(error)
        finally:
            if not finished:
                self._again_after = "0-0"
        return rest

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def _take(self) -> list[_Message]:
        """Up to a hundred messages: those of the dead first, then those delivered before, then new ones."""
        source = self._source
        if not self._has_group:
            await self._create_group()
        answer = await self._client.xautoclaim(
            source.key, source.group, self.name, int(source.claim_after * 1000), self._claim_from, count=_BATCH
        )
        self._claim_from = answer[0].decode()
        if claimed := _messages(answer[1]):
            self._messages.add(len(claimed), {"outcome": "claimed"})
            return claimed
        if self._again_after is not None:
            again = await self._read(self._again_after)
            self._again_after = again[-1].id if again else None
            return again
        return await self._read(">")

    async def _create_group(self) -> None:
        """Makes the group, from the beginning of the stream: what came before anybody listened counts, too."""
        try:
            await self._client.xgroup_create(self._source.key, self._source.group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._has_group = True

    async def _read(self, after: str) -> list[_Message]:
        source = self._source
        streams: dict[Any, Any] = {source.key: after}
        answer = await self._client.xreadgroup(
            source.group, self.name, streams, count=_BATCH, block=int(_BLOCK_SECONDS * 1000)
        )
        return [message for _, entries in answer for message in _messages(entries)]

    async def _publish(self, messages: Sequence[_Message]) -> _Settled:
        """Publishes what can be; raises what says nothing of any one message."""
        settled, fit = _Settled(), list[tuple[_Message, Incoming]]()
        for message in messages:
            # Whoever trimmed the stream, or deleted from it, left nothing to publish.
            if not message.fields:
                settled.done.append(message.id)
                self._messages.add(1, {"outcome": "gone"})
                continue
            try:
                fit.append((message, convert.incoming(self._source.key, message.id, message.fields)))
            except InvalidArgument as fault:
                settled.rejected.append((message, fault.message))
        await self._store(fit, settled)
        return settled

    async def _store(self, fit: Sequence[tuple[_Message, Incoming]], settled: _Settled) -> None:
        """All in one transaction; when that fails one by one, so that a bad one spoils nothing but itself."""
        if not fit:
            return
        try:
            published = await self._commit([incoming for _, incoming in fit])
        except _ABOUT_ALL:
            raise
        except Exception as error:
            if len(fit) > 1:
                for one in fit:
                    await self._store([one], settled)
                return
            message, _ = fit[0]
            if isinstance(error, InvalidArgument):
                settled.rejected.append((message, error.message))
                return
            if not settled.failed:
                _log.exception("stream_message_failed", extra={"message_id": message.id})
            settled.failed.append(message.id)
            self._messages.add(1, {"outcome": "failed"})
            return
        settled.done.extend(message.id for message, _ in fit)
        self._count(len(fit), published)

    async def _commit(self, incoming: Sequence[Incoming]) -> list[Published]:
        published = await self._database.transact(
            lambda connection, clock: publish_incoming(
                connection, incoming, self._publisher, new_message_trace, new_linked_trace, clock
            )
        )
        if roles := {run.role for one in published for run in one.runs}:
            self._work_wakeup.notify(*roles)
        if not all(one.is_complete for one in published):
            self._dispatch_wakeup.notify()
        return published

    def _count(self, messages: int, published: Sequence[Published]) -> None:
        self._messages.add(len(published), {"outcome": "published"})
        if messages > len(published):
            self._messages.add(messages - len(published), {"outcome": "duplicate"})

    async def _settle(self, settled: _Settled) -> None:
        """Puts aside what was rejected, and acknowledges it with what was committed."""
        source = self._source
        if settled.rejected:
            first, reason = settled.rejected[0]
            told = {"messages": len(settled.rejected), "message_id": first.id, "reason": reason}
            _log.warning("stream_messages_rejected", extra=told)
        for message, reason in settled.rejected:
            await self._client.xadd(
                source.rejected_key, _rejected(message, reason), maxlen=_KEPT_REJECTED, approximate=True
            )
            self._messages.add(1, {"outcome": "rejected"})
        if ids := [*settled.done, *(message.id for message, _ in settled.rejected)]:
            await self._client.xack(source.key, source.group, *ids)

    def _tell(self, error: ValkeyError | None) -> float:
        """Says whether the stream can be read, when that has changed; answers how long to rest."""
        is_away = error is not None
        if is_away != self._is_away:
            self._connected.set(0 if is_away else 1)
            if error is not None:
                _log.warning("stream_unavailable", extra={"cause": f"{type(error).__name__}: {error}"})
            else:
                _log.info("stream_consumed", extra={"stream": self._source.key, "consumer": self.name})
        self._is_away = is_away
        if not is_away:
            self._pause = _FIRST_PAUSE_SECONDS
            return 0.0
        rest = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        return rest


def check_url(url: str) -> None:
    """Raises ConfigurationError for a URL that is none of such a server."""
    try:
        parse_url(url)
    except ValueError:
        # Not with the cause, which may quote a password.
        raise ConfigurationError(
            "EVENT_STREAM_URL is no URL of a Redis or Valkey server: use redis://host:6379/0, or rediss:// for TLS"
        ) from None


def _client(url: str) -> Valkey:
    """A client that connects when it is used first."""
    checked: dict[str, Any] = {"ssl_check_hostname": True} if url.startswith(_ENCRYPTED) else {}
    client: Valkey = Valkey.from_url(
        url, socket_connect_timeout=_CONNECT_SECONDS, socket_timeout=_ANSWER_SECONDS, **checked
    )
    return client


def _messages(entries: Sequence[tuple[bytes | None, dict[bytes, bytes]]]) -> list[_Message]:
    return [_Message(message_id.decode(), fields) for message_id, fields in entries if message_id is not None]


def _rejected(message: _Message, reason: str) -> dict[Any, Any]:
    """The message, without what would be too large to keep ten thousand of, and why."""
    kept = {name: message.fields[name] for name in convert.FIELDS if name in message.fields}
    whole = {name: value for name, value in kept.items() if len(value) <= MAX_PAYLOAD_BYTES}
    return {"message_id": message.id, "reason": reason, **whole}

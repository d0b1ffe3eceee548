"""What is in the outbox is delivered in order, at least once, and waits while nobody takes it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from baton.api.v1 import inbox_service_pb2, inbox_service_pb2_grpc
from sqlalchemy import Connection, MetaData

from services.chassis import outbox
from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Unavailable
from services.chassis.inbox import InboxServicer
from services.chassis.outbox import Message, MessageRefused
from services.chassis.policy import policies
from services.chassis.relay import Relay, to_inbox
from services.chassis.server import create_server
from tests.integration.chassis.conftest import OpenDatabase
from tests.support.grpc import Signer, channel_of, serve_in_process

metadata = MetaData()
table = outbox.outbox_table(metadata)


@dataclass
class Recipient:
    """Takes messages, each once, unless it is told to fail."""

    taken: list[Message] = field(default_factory=list)
    source: str = ""
    refuses: str = ""
    batches: int = 0

    def take(self, connection: Connection, clock: Clock, source: str, messages: Sequence[Message]) -> None:
        self.source = source
        self.batches += 1
        for message in messages:
            if message.payload.get("text") == self.refuses:
                raise MessageRefused(message.id, "is refused")
        known = {message.id for message in self.taken}
        self.taken += (message for message in messages if message.id not in known)


@pytest.fixture
def recipient() -> Recipient:
    return Recipient()


@pytest.fixture
def database(open_database: OpenDatabase) -> Database:
    opened = open_database()
    opened.run(lambda connection, clock: metadata.create_all(connection))
    return opened


@pytest.fixture
async def address(recipient: Recipient, database: Database, tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """Where the recipient is, and a token for it."""
    signer = Signer.trusted_through(tmp_path / "jwks.json")
    server = create_server(policies([inbox_service_pb2.DESCRIPTOR]), Verifier(tmp_path / "jwks.json", SystemClock()))
    inbox_service_pb2_grpc.add_InboxServiceServicer_to_server(InboxServicer(database, {"news": recipient.take}), server)
    async with serve_in_process(server) as served:
        yield served, signer.token(["messages:deliver"])


def put(database: Database, *texts: str, topic: str = "news") -> None:
    for text in texts:
        database.run(lambda connection, clock: outbox.publish(connection, table, topic, {"text": text}, clock))  # noqa: B023


def left(database: Database, topic: str = "news") -> list[str]:
    messages = database.run(lambda connection, clock: outbox.oldest(connection, table, topic, 1000))
    return [message.payload["text"] for message in messages]


def relay(database: Database, channel: Any) -> Relay:
    return Relay(database, table, "news", to_inbox(channel, "here"))


async def test_what_is_delivered_arrives_in_order_and_leaves(
    database: Database, recipient: Recipient, address: tuple[str, str]
) -> None:
    put(database, *map(str, range(450)))
    put(database, "other", topic="olds")
    async with channel_of(*address) as channel:
        one = relay(database, channel)
        rests = [await one.step() for _ in range(3)]
    assert [message.payload["text"] for message in recipient.taken] == list(map(str, range(450)))
    assert (rests[:2], rests[2] > 0, recipient.source) == ([0.0, 0.0], True, "here")
    assert (left(database), left(database, "olds")) == ([], ["other"])


async def test_nothing_is_lost_while_nobody_answers(
    database: Database, recipient: Recipient, address: tuple[str, str]
) -> None:
    put(database, "one", "two")
    async with channel_of("unix:/nowhere") as channel:
        with pytest.raises(Unavailable):
            await relay(database, channel).step()
    assert left(database) == ["one", "two"]
    async with channel_of(*address) as channel:
        await relay(database, channel).step()
    assert [message.payload["text"] for message in recipient.taken] == ["one", "two"]


async def test_what_was_delivered_before_a_crash_is_delivered_again_and_taken_once(
    database: Database, recipient: Recipient, address: tuple[str, str]
) -> None:
    put(database, "one", "two")
    async with channel_of(*address) as channel:
        deliver = to_inbox(channel, "here")
        # It was heard of, and the sender ended before it could forget.
        await deliver(database.run(lambda connection, clock: outbox.oldest(connection, table, "news", 10)))
        assert left(database) == ["one", "two"]
        await relay(database, channel).step()
    assert [message.payload["text"] for message in recipient.taken] == ["one", "two"]
    assert left(database) == []


async def test_a_message_that_is_refused_stays_and_says_why(
    database: Database, recipient: Recipient, address: tuple[str, str]
) -> None:
    recipient.refuses = "bad"
    put(database, "good", "bad")
    async with channel_of(*address) as channel:
        with pytest.raises(InvalidArgument, match="is refused"):
            await relay(database, channel).step()
    assert left(database) == ["good", "bad"]


async def test_large_messages_go_a_few_at_a_time(
    database: Database, recipient: Recipient, address: tuple[str, str]
) -> None:
    put(database, *(f"{index}{'x' * 900_000}" for index in range(9)))
    async with channel_of(*address) as channel:
        await relay(database, channel).step()
    assert [message.payload["text"][0] for message in recipient.taken] == list("012345678")
    assert recipient.batches == 3

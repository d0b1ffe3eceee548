"""A stream of server-sent events, read beside the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from socket import SHUT_RDWR

from tests.support.waiting import wait_until


@dataclass
class Events:
    """What has been told so far: the fields of each event."""

    response: HTTPResponse
    events: list[dict[str, str]] = field(default_factory=list)

    def read(self) -> None:
        event: dict[str, str] = {}
        # It is hung up on from the other thread.
        with suppress(HTTPException, OSError):
            while raw := self.response.readline():
                line = raw.decode().rstrip("\n")
                name, _, value = line.partition(": ")
                if line and not line.startswith(":"):
                    event[name] = value
                elif event:
                    self.events.append(event)
                    event = {}


@contextmanager
def told(port: int, path: str, token: str, **headers: str) -> Iterator[Events]:
    """What is told on a path to the holder of a token, from the first event on."""
    named = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=named)
    socket, response = connection.sock, connection.getresponse()
    assert response.status == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")
    events = Events(response)
    reader = threading.Thread(target=events.read)
    reader.start()
    try:
        wait_until(lambda: events.events)
        yield events
    finally:
        with suppress(OSError):
            socket.shutdown(SHUT_RDWR)
        reader.join()
        response.close()
        connection.close()

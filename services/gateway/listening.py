"""The socket that the gateway listens on, and the HTTP server on it."""

import os
import socket
from typing import Any

from granian._granian import SocketHolder
from granian.server.embed import Server


def listen(host: str, port: int, *, backlog: int, stall_seconds: float, shares_port: bool) -> socket.socket:
    """A socket whose connections end when their other end has taken nothing for `stall_seconds`.

    With `shares_port` others who share it as well may listen there, too. Raises OSError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=backlog, reuse_port=shares_port)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None
    listening.setblocking(False)
    # Answers that are with the server already, or with the system, are in nobody's hands but the system's. Connections
    # inherit this. Other systems than Linux do not have it.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1000))
    return listening


class SocketServer(Server):
    """The server on a socket that listens already, which is its own from then on.

    By itself it would share any port with whoever else shares it, and panic over one that is not shared.
    """

    def __init__(self, app: Any, listening: socket.socket, **options: Any) -> None:
        super().__init__(app, **options)
        self._listening = listening

    def _init_shared_socket(self) -> None:
        self._ssp = None
        self._shd = SocketHolder(self._listening.detach(), False, self.backlog)  # type: ignore[call-arg, assignment]

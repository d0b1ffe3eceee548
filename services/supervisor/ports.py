"""The port of the gateway."""

import socket


def is_free(port: int) -> bool:
    """Whether the gateway could listen on `port`."""
    try:
        socket.create_server(("127.0.0.1", port), reuse_port=False).close()
    except OSError:
        return False
    return True

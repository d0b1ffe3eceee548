"""Free ports for the services behind the gateway."""

import socket


def free_addresses(count: int) -> list[str]:
    """So many loopback addresses on which nobody listens, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets]
    for listener in sockets:
        listener.close()
    return addresses


def is_free(port: int) -> bool:
    """Whether the gateway could listen on `port`."""
    try:
        socket.create_server(("127.0.0.1", port), reuse_port=False).close()
    except OSError:
        return False
    return True

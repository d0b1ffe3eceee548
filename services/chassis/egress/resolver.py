"""From the name of a host to its addresses."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from services.chassis.egress.errors import NotReached


class Resolver(Protocol):
    """Knows the addresses of names."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """All IP addresses of `host`, at least one. Raises NotReached when it has none."""


class SystemResolver:
    """Asks as the system is set up to: its hosts file, its name servers."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            found = []
        if not found:
            raise NotReached("the host's name cannot be resolved")
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

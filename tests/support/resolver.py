"""A resolver that needs no network."""

import asyncio
import socket
from collections.abc import Mapping, Sequence

from services.chassis.egress.errors import NotReached


class FakeResolver:
    """Knows the names it was given, and takes for a number whatever the system's resolver takes for one."""

    def __init__(self, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names = dict(names or {})
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host in self.names:
            return self.names[host]
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except OSError:
            raise NotReached("the host's name cannot be resolved") from None
        return [str(address[0]) for *_, address in found]


class RebindingResolver(FakeResolver):
    """Has another answer to each question for a name, as the name server of an attacker has."""

    def __init__(self, *answers: Sequence[str]) -> None:
        super().__init__()
        self._answers = list(answers)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0)

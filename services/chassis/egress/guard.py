"""Judges where a request would go."""

import httpx2

from services.chassis.egress import urls
from services.chassis.egress.addresses import Address, is_public
from services.chassis.egress.allowed import Allowed
from services.chassis.egress.errors import AddressRefused
from services.chassis.egress.resolver import Resolver, SystemResolver

# The same for every address: who may not reach it is not told whether it is there.
_REFUSAL = "is refused: only public addresses over https can be reached, and what the operator allows"


class Guard:
    """Lets through https to public addresses, and http or https to what is allowed."""

    def __init__(self, allowed: Allowed | None = None, resolver: Resolver | None = None) -> None:
        self._allowed = allowed or Allowed()
        self._resolver = resolver or SystemResolver()

    async def addresses(self, url: httpx2.URL) -> list[Address]:
        """All addresses of the host of a URL that `urls.read` has read, each of which may be connected to.

        Raises AddressRefused when one of them may not, and NotReached when there is none.
        """
        host, port = urls.host_of(url), urls.port_of(url)
        written = urls.literal(host)
        found = [written] if written else [_address(text) for text in await self._resolver.resolve(host, port)]
        if not self._allowed.name(host, port):
            for address in found:
                self._judge(url.scheme, address, port)
        return found

    def fault(self, text: str) -> str:
        """Why requests to a URL are refused wherever its host's name may lead; "" when that is not known yet.

        It is judged by what is written in it, and no resolver is asked.
        """
        try:
            self._judge_written(urls.read(text))
        except AddressRefused as refusal:
            return str(refusal)
        return ""

    def _judge_written(self, url: httpx2.URL) -> None:
        host, port = urls.host_of(url), urls.port_of(url)
        if self._allowed.name(host, port):
            return
        written = urls.literal(host)
        if written is not None:
            self._judge(url.scheme, written, port)
        elif url.scheme != "https" and not self._allowed.networks:
            raise AddressRefused(_REFUSAL)

    def _judge(self, scheme: str, address: Address, port: int) -> None:
        public = scheme == "https" and is_public(address)
        if not public and not self._allowed.address(address, port):
            raise AddressRefused(_REFUSAL)


def _address(text: str) -> Address:
    address = urls.literal(text)
    if address is None or "%" in text:  # a zone of this machine's own network
        raise AddressRefused(_REFUSAL)
    return address

"""What an operator lets requests reach beside the public internet."""

import re
from dataclasses import dataclass
from ipaddress import ip_network

from services.chassis.config import ConfigurationError
from services.chassis.egress import urls
from services.chassis.egress.addresses import Address, Network

VARIABLE = "BATON_EGRESS_ALLOW"
HELP = (
    "what requests may reach beside public addresses over https: host names, host:port, IP addresses, "
    "networks (10.1.0.0/16) and loopback, separated by commas"
)
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_BRACKETS = re.compile(r"\[([^\]]+)\](?::([0-9]+))?")
_Port = int | None  # None is any


@dataclass(frozen=True)
class Allowed:
    """Names, each with whatever it resolves to, and networks; over http, too. Nothing by default."""

    names: frozenset[tuple[str, _Port]] = frozenset()
    networks: tuple[tuple[Network, _Port], ...] = ()

    def name(self, host: str, port: int) -> bool:
        """Whether the host is allowed by its name, wherever that leads."""
        return not self.names.isdisjoint({(host, None), (host, port)})

    def address(self, address: Address, port: int) -> bool:
        return any(address in network and only in (None, port) for network, only in self.networks)


def parse(text: str) -> Allowed:
    """Reads a comma-separated list. Raises ConfigurationError, which names the entry at fault."""
    names: set[tuple[str, _Port]] = set()
    networks: list[tuple[Network, _Port]] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        if entry == "loopback":
            networks += [(ip_network(network), None) for network in _LOOPBACK]
        elif "/" in entry:
            networks.append((_network(entry), None))
        else:
            host, port = _host_and_port(entry)
            if urls.literal(host) is None:
                names.add((host, port))
            else:
                networks.append((ip_network(host), port))
    return Allowed(frozenset(names), tuple(networks))


def _network(entry: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        raise ConfigurationError(f"{VARIABLE} has {entry!r}, which is no network: {error}") from None


def _host_and_port(entry: str) -> tuple[str, _Port]:
    bracketed = _BRACKETS.fullmatch(entry)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif urls.literal(entry) is not None:
        host, port = entry, None
    else:
        host, _, port = entry.partition(":")
        port = port if ":" in entry else None
    wrong_brackets = bracketed is not None and ":" not in host
    if wrong_brackets or not urls.is_host(host.lower()) or (port is not None and not _is_port(port)):
        raise ConfigurationError(
            f"{VARIABLE} has {entry!r}, which is no host name, host:port, IP address, network or loopback"
        )
    return host.lower(), None if port is None else int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535

"""Everything that can be wrong with a tool server."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from services.chassis.egress import urls
from services.chassis.egress.errors import AddressRefused
from services.chassis.errors import Violation
from services.pipeline.builtin import BUILTIN_TOOLS
from services.pipeline.errors import TemplateError
from services.pipeline.revealing import TEXT_RULE, read_text
from services.tasks.models.tool_server import MASK, NewToolServer, ToolTransport

BUILTIN_SERVERS = frozenset(address.partition(".")[0] for address in BUILTIN_TOOLS)
# What sessions lets agents hold.
_SCOPE = re.compile(r"tool:[A-Za-z0-9._-]{1,95}")


def server_faults(new: NewToolServer) -> list[Violation]:
    """Every fault of a tool server."""
    if new.name in BUILTIN_SERVERS:
        return [Violation("name", f"{new.name!r} is built in: choose another name")]
    of_transport = _stdio_faults(new) if new.transport is ToolTransport.STDIO else _http_faults(new)
    return [*of_transport, *_scope_faults(new)]


def _scope_faults(new: NewToolServer) -> Iterator[Violation]:
    for index, scope in enumerate(new.scopes):
        if not _SCOPE.fullmatch(scope):
            description = (
                f"{scope!r} is not of the form tool:<name>, with letters, digits, '.', '_' and '-', such as tool:notify"
            )
            yield Violation(f"scopes[{index}]", description)


def _stdio_faults(new: NewToolServer) -> Iterator[Violation]:
    if not new.command:
        yield Violation("command", "is required for transport stdio")
    elif not PurePosixPath(new.command[0]).is_absolute():
        yield Violation("command[0]", f"{new.command[0]!r} must be the executable's absolute path")
    if new.url:
        yield Violation("url", "must be empty for transport stdio")
    yield from _env_faults(new.env)


def _env_faults(env: Mapping[str, str]) -> Iterator[Violation]:
    for name, value in env.items():
        if value == MASK:
            yield Violation(f"env.{name}", f"{MASK!r} is what values are shown as: give the value itself")
            continue
        try:
            read_text(value)
        except TemplateError:
            yield Violation(f"env.{name}", TEXT_RULE)


def _http_faults(new: NewToolServer) -> Iterator[Violation]:
    for field, value in (("command", new.command), ("env", new.env)):
        if value:
            yield Violation(field, "must be empty for transport http")
    if not new.url:
        yield Violation("url", "is required for transport http")
    elif fault := _url_fault(new.url):
        yield Violation("url", fault)


def _url_fault(text: str) -> str | None:
    """What is wrong with a URL. It may hold a password, so it is not repeated."""
    try:
        url = urls.read(text)
    except AddressRefused as refused:
        return str(refused)
    if url.scheme == "https" or _is_loopback(urls.host_of(url)):
        return None
    return "must be an https URL, or an http URL on a loopback address"


def _is_loopback(host: str) -> bool:
    address = urls.literal(host)
    return host == "localhost" if address is None else address.is_loopback

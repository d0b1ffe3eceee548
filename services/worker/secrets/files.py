"""One secret in the folder: a file of its name, and beside it perhaps one that says which tools may be given it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 64 * 1024
SHORTEST_VALUE = 8
"""Characters of the shortest value. Shorter ones can be found out by trying, for what is redacted shows that it is
one, and they would be redacted out of words that have nothing to do with them."""
TOOLS_SUFFIX = ".tools"

_TOOL = re.compile(r"[a-z][a-z0-9_-]{0,63}\.(\*|[A-Za-z0-9_.-]{1,128})")


class NotUsable(Exception):
    """A file that cannot be used; the message says why and repeats nothing of it."""


@dataclass(frozen=True)
class Secret:
    """A value, and the tools that may be given it."""

    value: str = field(repr=False)
    tools: frozenset[str] = frozenset()
    """Addresses, `http.request`, and servers with all of their tools, `github.*`."""

    def is_for(self, tool: str) -> bool:
        return tool in self.tools or f"{tool.partition('.')[0]}.*" in self.tools


def read_value(path: Path) -> str:
    """What a secret's file says, without the newline at its end. Raises NotUsable."""
    text = _read(path)
    value = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if len(value) < SHORTEST_VALUE:
        raise NotUsable(f"its file has fewer than {SHORTEST_VALUE} characters")
    if "\0" in value:
        raise NotUsable("its file has a NUL character in it")
    return value


def read_tools(path: Path) -> frozenset[str]:
    """The tools that a `.tools` file lists, one a line; what follows a `#` is a comment. Raises NotUsable."""
    lines = [line.partition("#")[0].strip() for line in _read(path).splitlines()]
    for number, line in enumerate(lines, start=1):
        if line and not _TOOL.fullmatch(line):
            raise NotUsable(f"line {number} of {path.name} must be a tool, http.request, or a server's tools, github.*")
    return frozenset(line for line in lines if line)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotUsable(f"{path.name} cannot be read: {(error.strerror or 'no reason given').lower()}") from None
    if len(content) > MAX_BYTES:
        raise NotUsable(f"{path.name} has more than {MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise NotUsable(f"{path.name} is not UTF-8") from None

"""The folder that the worker's operator keeps secrets in: one file each, as Docker and Kubernetes mount them."""

import logging
import os
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

from services.chassis.redaction import Redaction
from services.pipeline.errors import TemplateError
from services.pipeline.names import is_name
from services.pipeline.revealing import read_text, refers_to_secrets, reveal
from services.pipeline.secrets import NAME_RULE
from services.worker.secrets.files import TOOLS_SUFFIX, NotUsable, Secret, read_tools, read_value

# Former values of each name that are still taken out of what is told: who was given one may tell it late.
_FORMER_VALUES = 8
# File systems note times in steps: what changed just now may change again without showing.
_SETTLED_NANOSECONDS = 100_000_000
_T = TypeVar("_T")
_Files = Mapping[str, os.stat_result]
_log = logging.getLogger(__name__)


class Secrets:
    """What the folder holds now. Values leave it by `reveal` and `environment` alone; `clean` takes them out again."""

    def __init__(self, folder: Path | None = None) -> None:
        """Without a folder there are no secrets. Nothing is read before the first `look`."""
        self._folder = folder
        self._seen: Any = None
        self._known: dict[str, Secret] = {}
        self._faults: dict[str, str] = {}
        self._former = defaultdict[str, deque[str]](lambda: deque(maxlen=_FORMER_VALUES))
        self._values: set[str] = set()
        self._redaction = Redaction()

    def look(self) -> None:
        """Reads the folder if something in it has changed. Whoever uses a secret has looked just before."""
        if self._folder is None:
            return
        files = _list(self._folder)
        state = {name: _state(file) for name, file in files.items()}
        if state != self._seen:
            self._read(self._folder, files)
            self._seen = state if _is_settled(files) else None

    def reveal(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """A step's rendered input with the values that it refers to, for `tool` (`server.tool`).

        Raises TemplateError, which names the secret, when there is none of that name or it is not for this tool.
        """
        if not refers_to_secrets(arguments):
            return arguments
        self.look()
        revealed: dict[str, Any] = reveal(arguments, lambda name: self._value_for(tool, name))
        return revealed

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """A tool server's `env` with the values that it refers to. Raises TemplateError."""
        if not any("$" in text for text in env.values()):
            return dict(env)
        self.look()
        return {
            name: reveal(read_text(text, f"env.{name}"), lambda secret: self._secret(secret).value, f"env.{name}")
            for name, text in env.items()
        }

    def clean(self, value: _T) -> _T:
        """A JSON value without any secret that is or was known, see `redaction`. May be called in any thread."""
        return self._redaction.clean(value)

    def _value_for(self, tool: str, name: str) -> str:
        secret = self._secret(name)
        if not secret.is_for(tool):
            raise TemplateError(
                f"secret {name} is not for {tool}: the worker's operator lists its tools in {name}{TOOLS_SUFFIX}"
            )
        return secret.value

    def _secret(self, name: str) -> Secret:
        if name in self._known:
            return self._known[name]
        if name in self._faults:
            raise TemplateError(f"secret {name} cannot be used: {self._faults[name]}")
        raise TemplateError(
            f"there is no secret {name}: the worker's operator puts it into a file of that name in BATON_SECRETS_DIR"
        )

    def _read(self, folder: Path, files: _Files) -> None:
        known: dict[str, Secret] = {}
        faults: dict[str, str] = {}
        for name in files:
            if name.endswith(TOOLS_SUFFIX):
                continue
            try:
                known[name] = _read_secret(folder, name, has_tools=f"{name}{TOOLS_SUFFIX}" in files)
            except NotUsable as fault:
                faults[name] = str(fault)
        self._note_values(known)
        if known != self._known:
            _log.info("secrets_read", extra={"secrets": sorted(known)})
        for name, reason in faults.items() - self._faults.items():
            _log.warning("secret_not_usable", extra={"secret": name, "error": reason})
        self._known, self._faults = known, faults

    def _note_values(self, known: Mapping[str, Secret]) -> None:
        """From here on they are redacted: before anybody is given them, and as long as somebody may still tell them."""
        for name, secret in self._known.items():
            if name not in known or known[name].value != secret.value:
                self._former[name].append(secret.value)
        values = {secret.value for secret in known.values()}.union(*self._former.values())
        if values != self._values:
            self._values, self._redaction = values, Redaction(values)


def _list(folder: Path) -> _Files:
    """The files of a folder but the hidden ones, such as Kubernetes' `..data`; none when it cannot be read."""
    files: dict[str, os.stat_result] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            with suppress(OSError):  # a link to nowhere, or gone since
                stat = entry.stat()
                if S_ISREG(stat.st_mode):
                    files[entry.name] = stat
    return files


def _state(file: os.stat_result) -> tuple[int, ...]:
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns


def _is_settled(files: _Files) -> bool:
    newest = max((max(file.st_mtime_ns, file.st_ctime_ns) for file in files.values()), default=0)
    return newest < time.time_ns() - _SETTLED_NANOSECONDS


def _read_secret(folder: Path, name: str, *, has_tools: bool) -> Secret:
    if not is_name(name):
        raise NotUsable(f"its name is none of {NAME_RULE}")
    tools = read_tools(folder / f"{name}{TOOLS_SUFFIX}") if has_tools else frozenset()
    return Secret(read_value(folder / name), tools)

"""The folder that everything of one machine's Baton lies in."""

import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from services.chassis.config import ConfigurationError

_SOCKET_PATH_BYTES = 107
"""What Linux takes as the path of a socket, see unix(7)."""


class Home:
    """The paths in a home, the keys that are made when it is new, and the one process that it serves."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.admin_token = self.path / "admin-token"
        self.worker_token = self.path / "keys" / "worker-token"
        self.audit_key = self.path / "keys" / "audit-key"
        self.services_token = self.path / "keys" / "services-token"
        self.signing_key = self.path / "keys" / "signing-key.json"
        self.jwks = self.path / "keys" / "jwks.json"
        self.cursor_key = self.path / "keys" / "cursor-key"
        self.database_secret = self.path / "keys" / "database-secret"
        self.secrets = self.path / "secrets"
        self.logs = self.path / "logs"
        self.sockets = self.path / "run"
        self.postgres = self.path / "postgres"
        self.demo_due = self.path / "demo-due"

    def prepare(self, *, demo: bool) -> None:
        """Creates what is missing. A home that was empty is due the demo, until it has got it.

        Raises ConfigurationError when another process has this home.
        """
        new = not self.jwks.exists()
        # Others may pass through: an embedded PostgreSQL that root starts runs as a user of its own.
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        for private in (self.path / "keys", self.secrets, self.logs, self.sockets):
            private.mkdir(mode=0o700, exist_ok=True)
        self._lock()
        for key in (self.cursor_key, self.database_secret):
            _create_secret(key)
        if new and demo:
            self.demo_due.touch()

    def addresses(self, names: Sequence[str], suffix: str = "sock") -> dict[str, str]:
        """Where the services of these names serve: sockets that nobody else on the machine may open.

        Raises ConfigurationError when the home's path is too long for them.
        """
        paths = {name: self.sockets / f"{name}.{suffix}" for name in names}
        excess = max(len(os.fsencode(path)) for path in paths.values()) - _SOCKET_PATH_BYTES
        if excess > 0:
            raise ConfigurationError(f"the path {self.path} is {excess} bytes too long: set BATON_HOME to another")
        return {name: f"unix:{quote(str(path))}" for name, path in paths.items()}

    def _lock(self) -> None:
        """Holds the home until this process ends. A lock of this kind is not passed on to children."""
        held = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            raise ConfigurationError(
                f"{self.path} is another Baton's, which is running: stop that, or set BATON_HOME to another folder"
            ) from None


def _create_secret(path: Path) -> None:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))

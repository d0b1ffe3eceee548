"""The folder that everything of one machine's Baton lies in."""

import os
import secrets
from pathlib import Path


class Home:
    """The paths in a home, and the keys that are made when it is new."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.admin_token = self.path / "admin-token"
        self.worker_token = self.path / "keys" / "worker-token"
        self.signing_key = self.path / "keys" / "signing-key.json"
        self.jwks = self.path / "keys" / "jwks.json"
        self.cursor_key = self.path / "keys" / "cursor-key"
        self.database_secret = self.path / "keys" / "database-secret"
        self.secrets = self.path / "secrets"
        self.logs = self.path / "logs"
        self.postgres = self.path / "postgres"
        self.demo_due = self.path / "demo-due"

    def prepare(self, *, demo: bool) -> None:
        """Creates what is missing. A home that was empty is due the demo, until it has got it."""
        new = not self.jwks.exists()
        # Others may pass through: an embedded PostgreSQL that root starts runs as a user of its own.
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
        for private in (self.path / "keys", self.secrets, self.logs):
            private.mkdir(mode=0o700, exist_ok=True)
        for key in (self.cursor_key, self.database_secret):
            _create_secret(key)
        if new and demo:
            self.demo_due.touch()


def _create_secret(path: Path) -> None:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))

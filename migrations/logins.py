"""The logins that the services use, one per context, and the URLs they connect with."""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from migrations import address
from migrations.errors import UnusableAddress, UnusableSecret

SECRET_FILE_VARIABLE = "BATON_DATABASE_PASSWORD_SECRET_FILE"  # noqa: S105 - a variable's name
_MIN_SECRET_BYTES = 16
_MAX_NAME_BYTES = 63  # PostgreSQL cuts longer names off


def login(database: str, context: str) -> str:
    """The login of `context`. Roles belong to the whole server, so it bears the database's name."""
    name = f"{database}_{context}"
    if len(name.encode()) > _MAX_NAME_BYTES:
        longest = _MAX_NAME_BYTES - len("_workflows")
        raise UnusableAddress(
            f"the database name {database!r} is too long: at most {longest} bytes leave room for logins"
        )
    return name


def password(secret: bytes, login: str) -> str:
    """The password of `login`: base64url(HMAC-SHA256(secret, login)) without padding."""
    digest = hmac.digest(secret, login.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def service_url(database_url: str, context: str, secret: bytes | None = None) -> str:
    """The URL that the service `context` connects with, from an administrator's `database_url`.

    On PostgreSQL: the same server and database as the context's own login, with the password that `secret` gives
    it, or without one. On SQLite: the context's file in the directory. Raises UnusableAddress.
    """
    url = address.parse(database_url)
    if url.drivername == "sqlite":
        return f"sqlite:///{address.directory(url) / context}.db"
    name = login(url.database or "", context)
    # The administrator's own password goes, wherever it stands.
    bare = url.difference_update_query(["password"])._replace(username=name, password=None)
    own = bare if secret is None else bare.set(password=password(secret, name))
    return own.render_as_string(hide_password=False)


def read_secret(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """The random bytes that passwords derive from, or None when no file is named. Raises UnusableSecret."""
    path = environ.get(SECRET_FILE_VARIABLE)
    if not path:
        return None
    try:
        secret = Path(path).read_bytes()
    except OSError as error:
        raise UnusableSecret(f"{SECRET_FILE_VARIABLE}: {path} cannot be read: {error.strerror}") from error
    if len(secret) < _MIN_SECRET_BYTES:
        raise UnusableSecret(f"{SECRET_FILE_VARIABLE}: {path} is too short: at least {_MIN_SECRET_BYTES} random bytes")
    return secret

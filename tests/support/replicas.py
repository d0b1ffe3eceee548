"""More processes beside those that a running Baton has: second workers, second replicas of the tasks service."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from migrations.logins import service_url
from tests.support.baton import ROOT, Baton
from tests.support.processes import free_port
from tests.support.waiting import wait_until

_START_SECONDS = 30.0
_ADDRESS = re.compile(r'"event":"serving".*"address":"([^"]+)"|"address":"([^"]+)".*"event":"serving"')


class Replica:
    """One more process of Baton."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str = "") -> None:
        self._process = process
        self.address = address

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        """Ends it at once, stopped or not."""
        self._process.kill()
        self._process.wait(10)


def address_of(baton: Baton, name: str) -> str:
    """Where one of Baton's own services serves now."""
    found = [first or second for first, second in _ADDRESS.findall(baton.log(name))]
    return found[-1]


@contextmanager
def worker(baton: Baton, tasks_address: str | None = None, **settings: str) -> Iterator[Replica]:
    """A second worker, of the tasks service at `tasks_address`, else of Baton's own."""
    environment = {
        "BATON_TASKS_ADDRESS": tasks_address or address_of(baton, "tasks"),
        "BATON_SESSIONS_ADDRESS": address_of(baton, "sessions"),
        "BATON_WORKFLOWS_ADDRESS": address_of(baton, "workflows"),
        "BATON_WORKER_TOKEN_FILE": str(baton.home / "keys" / "worker-token"),
    }
    with _running(baton, "worker", environment | settings, '"event":"working"') as replica:
        yield replica


@contextmanager
def tasks_service(baton: Baton, database_url: str, **settings: str) -> Iterator[Replica]:
    """A second replica of the tasks service on the same tables; `database_url` is the administrator's."""
    address, secret = f"127.0.0.1:{free_port()}", baton.home / "keys" / "database-secret"
    environment = {
        "BATON_LISTEN": address,
        "BATON_DATABASE_URL": service_url(database_url, "tasks", secret.read_bytes()),
        "BATON_JWKS_FILE": str(baton.home / "keys" / "jwks.json"),
        "BATON_CURSOR_KEY_FILE": str(baton.home / "keys" / "cursor-key"),
    }
    with _running(baton, "tasks", environment | settings, '"event":"serving"') as replica:
        replica.address = address
        yield replica


@contextmanager
def _running(baton: Baton, name: str, environment: dict[str, str], first_words: str) -> Iterator[Replica]:
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")])}
    log = baton.home / "logs" / f"second-{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"], cwd=ROOT, env=variables | environment, stdout=file, stderr=file
        )
    replica = Replica(process)
    try:
        wait_until(lambda: first_words in log.read_text(), timeout=_START_SECONDS)
        yield replica
    finally:
        replica.end()

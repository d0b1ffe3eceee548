"""A Baton of a test's own, on each engine, that may be broken in any way."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases, effects_server
from tests.support.baton import ROOT, Baton, task
from tests.support.effects_server import Mark
from tests.support.postgres import Postgres
from tests.support.waiting import wait_until


@dataclass
class Victim:
    """A running Baton, its database, and the effects of what it ran."""

    baton: Baton
    database_url: str
    """The administrator's."""
    postgres: Postgres | None
    """Its own server, if it has one."""
    noted: Path

    def effects(self) -> list[str]:
        """What the tool `effects.note` was called with, in order."""
        return effects_server.effects(self.noted)

    def marks(self) -> list[Mark]:
        """What `effects.last` began and ended, in order."""
        return effects_server.marks(self.noted)

    def begun(self, run_id: str) -> list[int]:
        """The workers that began what `effects.last` does for a run, by their process ids."""
        return [mark.worker for mark in self.marks() if mark.begins and mark.text == run_id]

    def let_go(self) -> None:
        """Ends what `effects.last` holds."""
        effects_server.let_go(self.noted)

    def logged(self, name: str, event: str) -> list[dict[str, Any]]:
        """What one of the processes has logged of such events."""
        lines = (json.loads(line) for line in self.baton.log(name).splitlines() if f'"{event}"' in line)
        return [line for line in lines if line["event"] == event]

    def expired(self) -> int:
        """How many leases have ended without a report."""
        events = self.logged("tasks", "leases_expired")
        return sum(event[count] for event in events for count in ("requeued", "poisoned", "canceled"))

    def create(self, title: str, *steps: dict[str, Any], **fields: Any) -> str:
        """A task whose steps note something; answers its id."""
        task_id: str = self.baton.create("/tasks", task(title, *steps, **fields))["id"]
        return task_id


@pytest.fixture(params=databases.ENGINES)
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Victim]:
    with started(request.param, tmp_path) as one:
        yield one


@contextmanager
def started(engine: str, folder: Path, **settings: str) -> Iterator[Victim]:
    """Starts a Baton on `engine`, with everything it keeps in `folder`, and with these settings."""
    with ExitStack() as stack:
        home, noted = folder / "home", folder / "effects"
        environment, server = {"BATON_DEMO": "0", **settings}, None
        database_url = f"sqlite:///{home}"
        if engine == "postgres":
            server = Postgres()
            stack.callback(server.remove)
            server.start()
            database_url = stack.enter_context(databases.postgres_database(server))
            environment["DATABASE_URL"] = database_url
        baton = Baton(home, **environment)
        stack.callback(baton.stop)
        baton.start()
        command = [sys.executable, "-m", "tests.support.effects_server", str(noted)]
        environment = {"PYTHONPATH": str(ROOT)}
        baton.create("/tool-servers", {"name": "effects", "transport": "stdio", "command": command, "env": environment})
        wait_until(lambda: any(item["address"] == "effects.note" for item in baton.get("/tools")["items"]))
        yield Victim(baton, database_url, server, noted)


def lasting(seconds: float = 0.0, *, hold: bool = False) -> dict[str, Any]:
    """A step that marks its beginning and its end with the run's id, after so long, or when it is let go."""
    return {"uses": "effects.last", "with": {"text": "${run.id}", "seconds": seconds, "hold": hold}}


def note(text: str, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    """A step that notes something."""
    return {"uses": "effects.note", "with": {"text": text, "seconds": seconds}} | more

"""A Baton of a test's own, on each engine, that may be broken in any way."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases, effects_server
from tests.support.baton import ROOT, Baton, task
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

    def create(self, title: str, *steps: dict[str, Any], **fields: Any) -> str:
        """A task whose steps note something; answers its id."""
        task_id: str = self.baton.create("/tasks", task(title, *steps, **fields))["id"]
        return task_id


@pytest.fixture(params=databases.ENGINES)
def victim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Victim]:
    with ExitStack() as stack:
        home, noted = tmp_path / "home", tmp_path / "effects"
        environment, server = {"BATON_DEMO": "0"}, None
        database_url = f"sqlite:///{home}"
        if request.param == "postgres":
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
        wait_until(lambda: any(item["address"] == "effects.note" for item in baton.get("/tools")["items"]), timeout=60)
        yield Victim(baton, database_url, server, noted)


def note(text: str, seconds: float = 0.0, **more: Any) -> dict[str, Any]:
    """A step that notes something."""
    return {"uses": "effects.note", "with": {"text": text, "seconds": seconds}} | more

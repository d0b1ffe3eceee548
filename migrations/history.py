"""How far a context's tables are, and the steps that lead on from there."""

from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection

from migrations.errors import NewerDatabase

CONFIG_FILE = Path(__file__).with_name("alembic.ini")


@dataclass(frozen=True)
class Step:
    """One revision: its id and what it does."""

    revision: str
    summary: str


@dataclass(frozen=True)
class State:
    """Where a context is: its revision, None before the first; the newest one; the steps between, oldest first."""

    context: str
    current: str | None
    newest: str
    pending: tuple[Step, ...]


class History:
    """The revisions of one context."""

    def __init__(self, context: str, config_file: Path = CONFIG_FILE) -> None:
        self.context = context
        self.config = Config(config_file, ini_section=context)
        self._scripts = ScriptDirectory.from_config(self.config)

    def state(self, connection: Connection) -> State:
        """Raises NewerDatabase when the tables are at a revision that is not here."""
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()  # only looked
        newest = self._scripts.get_current_head()
        assert newest is not None, f"{self.context} has no revisions"
        return State(self.context, current, newest, self._after(current))

    def _after(self, current: str | None) -> tuple[Step, ...]:
        try:
            newest_first = list(self._scripts.iterate_revisions("head", current or "base"))
        except (CommandError, RevisionError) as error:
            raise NewerDatabase(
                f"the {self.context} tables are at revision {current}, which this version of Baton does not know: "
                "use the version that migrated them, or a newer one"
            ) from error
        return tuple(_step(script) for script in reversed(newest_first) if isinstance(script, Script))


def _step(script: Script) -> Step:
    return Step(script.revision, (script.doc or "").splitlines()[0].rstrip("."))

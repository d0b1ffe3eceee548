"""The command as a user runs it, and histories with steps of a test's own."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import alembic.command
import pytest
from sqlalchemy import Connection, text

from migrations import __main__ as command_line
from migrations.contexts import CONTEXTS
from migrations.history import CONFIG_FILE, History
from migrations.runner import open_target

STEPS = {
    context: sorted(file.stem[:4] for file in (CONFIG_FILE.parent / context / "versions").glob("*.py"))
    for context in CONTEXTS
}
"""The revisions of each context, oldest first: their files bear their numbers."""
HEADS = {context: steps[-1] for context, steps in STEPS.items()}


def upgrade_to_0001(database_url: str) -> None:
    """Makes the tables as the first step of each context left them."""
    target = open_target(database_url)
    with target.locked():
        target.prepare(None)
        for context in CONTEXTS:
            with target.connect(context) as connection:
                history = History(context)
                history.config.attributes["connection"] = connection
                alembic.command.upgrade(history.config, "0001")


def add_template(connection: Connection, name: str) -> None:
    """Writes a row of a kind that no migration has changed."""
    moment = "0" if connection.dialect.name == "sqlite" else "now()"
    columns = "name, version, definition, created_at"
    connection.execute(text(f"INSERT INTO templates ({columns}) VALUES (:name, 1, '{{}}', {moment})"), {"name": name})


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]
"""Runs `python -m migrations` with the given arguments; `typed` is what the user types."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str, typed: str = "") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["migrations", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return run


@dataclass(frozen=True)
class ExtraSteps:
    """The histories as they are, and more steps of the tasks context behind them."""

    config_file: Path
    directory: Path

    def add(self, revision: str, *statements: str) -> None:
        """A step that executes `statements`, one by one, behind the others; a second one of a name replaces it."""
        earlier = sorted(file.stem for file in self.directory.glob("*.py") if file.stem < revision)
        after = earlier[-1] if earlier else HEADS["tasks"]
        lines = [f'"""Step {revision} of a test."""', "from alembic import op"]
        lines += [f"revision, down_revision = {revision!r}, {after!r}", "def upgrade():"]
        lines += [f"    op.execute({statement!r})" for statement in statements]
        (self.directory / f"{revision}.py").write_text("\n".join(lines))


@pytest.fixture
def extra_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtraSteps:
    # A step that a test rewrites within a second must not be read from its old bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    directory = tmp_path / "more-versions"
    directory.mkdir()
    home = CONFIG_FILE.parent
    lines = ["[DEFAULT]", f"script_location = {home}", "path_separator = newline"]
    for context in CONTEXTS:
        lines += [f"[{context}]", "version_locations =", f"    {home / context / 'versions'}"]
        lines += [f"    {directory}"] if context == "tasks" else []
    config_file = tmp_path / "alembic.ini"
    config_file.write_text("\n".join(lines))
    return ExtraSteps(config_file, directory)

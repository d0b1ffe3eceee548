"""The contexts that have tables, each with a history of its own."""

import re
from importlib import import_module
from typing import Any

from sqlalchemy import MetaData

CONTEXTS = ("sessions", "tasks", "workflows")

COMPARED = ("alembic.autogenerate.*", "alembic.ext.checkconstraint_byname")
"""What Alembic compares when it looks for differences; check constraints only when they are asked for."""

BESIDE_THE_TABLES = {
    "postgresql": ("run_history_before", "run_history_after", "ix_run_history_words"),
    "sqlite": ("run_texts", "run_search"),
}
"""What revisions of tasks make for an engine alone: the code knows no tables for it."""
_BESIDE = re.compile(r"run_history_(\d{4}_\d\d|before|after)|ix_run_history_words|run_texts|run_search(_\w+)?")


def is_compared(name: str | None, kind: str, parents: Any) -> bool:
    """Whether Alembic compares a thing that it found: partitions, and what text is searched with, it does not."""
    return name is None or not _BESIDE.fullmatch(name)


def expected(context: str) -> MetaData:
    """The tables as the code of `context` knows them; imports that code, which migrating itself never does."""
    metadata = import_module(f"services.{context}.store.tables").metadata
    assert isinstance(metadata, MetaData)
    return metadata

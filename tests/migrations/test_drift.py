"""The tables that the revisions make are the ones that the code knows."""

import ast
from pathlib import Path

import pytest
from sqlalchemy import text

from migrations import verification
from migrations.contexts import CONTEXTS, expected
from migrations.runner import open_target
from tests.migrations.reflection import reflected

_REVISIONS = sorted((Path(__file__).parents[2] / "migrations").glob("*/versions/*.py"))


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_revisions_make_exactly_the_tables_of_the_code(database_url: str, context: str) -> None:
    target = open_target(database_url)
    with target.connect(context) as connection:
        made = reflected(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(text("CREATE SCHEMA from_code"))
            connection.commit()
    # A schema beside the others, or, where each context is a file and this one is none, a database in memory.
    with target.connect("from_code") as connection:
        expected(context).create_all(connection)
        assert made == reflected(connection)


def test_a_fresh_database_verifies(database_url: str) -> None:
    assert verification.findings(database_url) == []


@pytest.mark.parametrize("revision", _REVISIONS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_revision_is_frozen_it_imports_no_code_that_changes(revision: Path) -> None:
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(revision.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= {"alembic", "sqlalchemy", "migrations.types", "typing"}

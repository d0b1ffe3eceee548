"""The contexts that have tables, each with a history of its own."""

from importlib import import_module

from sqlalchemy import MetaData

CONTEXTS = ("sessions", "tasks", "workflows")

COMPARED = ("alembic.autogenerate.*", "alembic.ext.checkconstraint_byname")
"""What Alembic compares when it looks for differences; check constraints only when they are asked for."""


def expected(context: str) -> MetaData:
    """The tables as the code of `context` knows them; imports that code, which migrating itself never does."""
    metadata = import_module(f"services.{context}.store.tables").metadata
    assert isinstance(metadata, MetaData)
    return metadata

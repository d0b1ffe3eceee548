"""Rows of `templates`."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, select, tuple_

from services.chassis.upsert import upsert
from services.workflows.definition import from_document
from services.workflows.models.template import Definition, Template
from services.workflows.store.tables import templates


def find(connection: Connection, *, name: str, version: int | None) -> Template | None:
    """That version of the template, the newest when `version` is None."""
    query = select(templates).where(templates.c.name == name).order_by(templates.c.version.desc()).limit(1)
    if version is not None:
        query = query.where(templates.c.version == version)
    row = connection.execute(query).one_or_none()
    return Template(from_document(row.definition), row.created_at) if row is not None else None


def missing(connection: Connection, definitions: Collection[Definition]) -> list[Definition]:
    """Those of `definitions` whose name and version are not stored."""
    key = (templates.c.name, templates.c.version)
    wanted = [(definition.name, definition.version) for definition in definitions]
    present = {tuple(row) for row in connection.execute(select(*key).where(tuple_(*key).in_(wanted)))}
    return [definition for definition in definitions if (definition.name, definition.version) not in present]


def insert_unless_present(connection: Connection, definition: Definition, *, created_at: datetime) -> bool:
    """Stores the definition and says so, unless its name and version are there. Of several at once, one is stored."""
    row = {
        "name": definition.name,
        "version": definition.version,
        "definition": asdict(definition),
        "created_at": created_at,
    }
    unless_present = upsert(connection, templates).values(row).on_conflict_do_nothing()
    return connection.execute(unless_present.returning(templates.c.version)).one_or_none() is not None

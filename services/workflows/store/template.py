"""Rows of `templates`."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select, tuple_, update

from services.chassis.upsert import upsert
from services.workflows.definition import from_document
from services.workflows.models.template import Definition, Template
from services.workflows.store.tables import templates


def find(connection: Connection, *, name: str, version: int | None) -> Template | None:
    """That version of the template, the newest when `version` is None."""
    query = select(templates).where(templates.c.name == name).order_by(templates.c.version.desc()).limit(1)
    query = query.where(templates.c.deleted_at.is_(None) if version is None else templates.c.version == version)
    row = connection.execute(query).one_or_none()
    return _template(row) if row is not None else None


def newest_version(connection: Connection, name: str) -> int:
    """The number of the newest version of a template, deleted or not; 0 when there never was one."""
    query = select(func.max(templates.c.version)).where(templates.c.name == name)
    return connection.execute(query).scalar_one() or 0


def list_newest(connection: Connection, *, limit: int, after: str | None) -> list[Template]:
    """Up to `limit` templates in their newest version, in the order of their names, behind the name `after`."""
    newest = select(templates.c.name, func.max(templates.c.version).label("version"))
    newest = newest.where(templates.c.deleted_at.is_(None)).group_by(templates.c.name)
    if after is not None:
        newest = newest.where(templates.c.name > after)
    wanted = newest.order_by(templates.c.name).limit(limit).subquery()
    same = and_(templates.c.name == wanted.c.name, templates.c.version == wanted.c.version)
    query = select(templates).join(wanted, same).order_by(templates.c.name)
    return [_template(row) for row in connection.execute(query)]


def delete(connection: Connection, name: str, now: datetime) -> bool:
    """Marks all versions of a template as deleted, unless they are; says whether there was one."""
    there = (templates.c.name == name, templates.c.deleted_at.is_(None))
    return connection.execute(update(templates).where(*there).values(deleted_at=now)).rowcount > 0


def restore(connection: Connection, name: str) -> None:
    """Takes back that a template was deleted."""
    connection.execute(update(templates).where(templates.c.name == name).values(deleted_at=None))


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


def _template(row: Row[Any]) -> Template:
    return Template(from_document(row.definition), row.created_at)

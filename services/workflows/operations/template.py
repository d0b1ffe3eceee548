"""The rules about templates."""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import InvalidArgument, Violation
from services.workflows.definition import parse
from services.workflows.errors import TemplateNotFound, TemplateVersionTaken
from services.workflows.models.template import Definition, Template
from services.workflows.source import read_source, within_source
from services.workflows.store import tables
from services.workflows.store import template as templates


def get_template(connection: Connection, *, name: str, version: int | None) -> Template:
    """That version of the template, the newest when `version` is None. Raises TemplateNotFound."""
    template = templates.find(connection, name=name, version=version)
    if template is None:
        raise TemplateNotFound(name, version)
    return template


def create_template(
    connection: Connection,
    source: str,
    shipped: Collection[str],
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
) -> Template:
    """Stores what somebody has written as the next version of a template.

    Raises InvalidArgument that names every fault, or TemplateVersionTaken.
    """
    document = read_source(source)
    name = document.get("name") if isinstance(document, dict) else None
    if name in shipped:
        raise _ships(str(name), "source.name")
    following = templates.newest_version(connection, name) + 1 if isinstance(name, str) else 1
    if isinstance(document, dict):
        document.setdefault("version", following)
    try:
        definition = parse(document)
    except InvalidArgument as refused:
        raise within_source(refused) from None
    stored = definition.version == following and templates.insert_unless_present(
        connection, definition, created_at=clock.now()
    )
    if not stored:
        raise TemplateVersionTaken(definition.name, definition.version, following)
    templates.restore(connection, definition.name)
    told = {"version": definition.version, "states": [state.name for state in definition.states]}
    _audit(connection, clock, "template.create", definition.name, caller, after=told, request_id=request_id)
    return Template(definition, clock.now())


def delete_template(
    connection: Connection,
    name: str,
    shipped: Collection[str],
    caller: Caller,
    clock: Clock,
    *,
    request_id: str = "",
) -> None:
    """Deletes a template, which workflows that are under way go on by. Raises InvalidArgument or TemplateNotFound."""
    if name in shipped:
        raise _ships(name, "name")
    if not templates.delete(connection, name, clock.now()):
        raise TemplateNotFound(name, None)
    _audit(connection, clock, "template.delete", name, caller, request_id=request_id)


def store_templates(connection: Connection, definitions: Iterable[Definition], *, clock: Clock) -> None:
    """Stores those that are not there yet."""
    for definition in definitions:
        templates.insert_unless_present(connection, definition, created_at=clock.now())


def _ships(name: str, field: str) -> InvalidArgument:
    return InvalidArgument.of([Violation(field, f"{name!r} ships with Baton, and is not changed: use another name")])


def _audit(connection: Connection, clock: Clock, action: str, name: str, caller: Caller, **told: Any) -> None:
    outbox.audit(
        connection, tables.outbox, clock, action=action, actor=caller.agent_id, resource=f"template/{name}", **told
    )

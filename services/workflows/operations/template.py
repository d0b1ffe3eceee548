"""The rules about templates."""

from collections.abc import Iterable

from sqlalchemy import Connection

from services.chassis.clock import Clock
from services.workflows.errors import TemplateNotFound
from services.workflows.models.template import Definition, Template
from services.workflows.store import template as templates


def get_template(connection: Connection, *, name: str, version: int | None) -> Template:
    """That version of the template, the newest when `version` is None. Raises TemplateNotFound."""
    template = templates.find(connection, name=name, version=version)
    if template is None:
        raise TemplateNotFound(name, version)
    return template


def store_templates(connection: Connection, definitions: Iterable[Definition], *, clock: Clock) -> None:
    """Stores those that are not there yet."""
    for definition in definitions:
        templates.insert_unless_present(connection, definition, created_at=clock.now())

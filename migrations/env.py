"""Run by Alembic for one context, the section of alembic.ini in use.

The runner brings a connection. Alembic's own commands, which developers use to write revisions, get one here
together with the tables that the code expects; migrating never imports these.
"""

from alembic import context
from sqlalchemy import Connection

from migrations import address, runner
from migrations.contexts import COMPARED, expected, is_compared

_section = context.config.config_ini_section


def _run(connection: Connection, *, compare: bool) -> None:
    context.configure(
        connection=connection,
        transaction_per_migration=True,
        transactional_ddl=True,  # on SQLite too: the connection says BEGIN itself
        render_as_batch=compare and connection.dialect.name == "sqlite",
        target_metadata=expected(_section) if compare else None,
        autogenerate_plugins=COMPARED,
        include_name=is_compared,
        on_version_apply=context.config.attributes.get("on_version_apply"),
    )
    with context.begin_transaction():
        context.run_migrations()


if "connection" in context.config.attributes:
    _run(context.config.attributes["connection"], compare=False)
else:
    with runner.open_target(address.default()).connect(_section) as opened:
        _run(opened, compare=True)

"""Files: outputs that are too large for the record of a run."""

from datetime import datetime

from sqlalchemy import Connection, delete, exists, literal, select

from services.chassis.upsert import upsert
from services.tasks.store.tables import approvals, files, run_step_items, run_steps

PREFIX = "/files/"
"""Where a file is: this, and its digest."""


def put_file(connection: Connection, digest: str, content: bytes, now: datetime) -> None:
    """Keeps a file; one that is there already counts as stored anew."""
    row = {"digest": digest, "content": content, "stored_at": now}
    same = upsert(connection, files).values(row)
    connection.execute(same.on_conflict_do_update(index_elements=["digest"], set_={"stored_at": now}))


def get_file(connection: Connection, digest: str) -> bytes | None:
    """The content of a file; None when there is none."""
    return connection.execute(select(files.c.content).where(files.c.digest == digest)).scalar_one_or_none()


def delete_files(connection: Connection, cutoff: datetime, limit: int) -> int:
    """Deletes up to `limit` files that were last stored before `cutoff` and that nothing refers to, oldest first."""
    uri = literal(PREFIX) + files.c.digest
    users = (run_steps.c.output_uri, run_step_items.c.output_uri, approvals.c.action_uri)
    unused = (~exists().where(column == uri) for column in users)
    oldest = select(files.c.digest).where(files.c.stored_at < cutoff, *unused).order_by(files.c.stored_at)
    return connection.execute(delete(files).where(files.c.digest.in_(oldest.limit(limit)))).rowcount

"""Revision 0002 of sessions: agents have roles, and those from before have none."""

from sqlalchemy import text

from migrations import runner
from migrations.runner import open_target
from tests.migrations.conftest import upgrade_to_0001

_BEFORE, _DURING = "0198a000-0000-7000-8000-000000000000", "0198a000-0000-7000-8000-000000000001"


def _insert_as_0001_does(database_url: str, agent_id: str, name: str) -> None:
    with open_target(database_url).connect("sessions") as connection, connection.begin():
        sqlite = connection.dialect.name == "sqlite"
        values = {"id": agent_id.replace("-", "") if sqlite else agent_id, "name": name}
        moment = "0" if sqlite else "now()"
        connection.execute(
            text(
                "INSERT INTO agents (id, name, scopes, created_at, updated_at) "
                f"VALUES (:id, :name, '[\"tasks:read\"]', {moment}, {moment})"
            ),
            values,
        )


def test_agents_of_the_code_before_have_no_role(empty_database_url: str) -> None:
    upgrade_to_0001(empty_database_url)
    _insert_as_0001_does(empty_database_url, _BEFORE, "before")
    runner.upgrade(empty_database_url)
    # A service that was not replaced yet goes on.
    _insert_as_0001_does(empty_database_url, _DURING, "during")

    with open_target(empty_database_url).connect("sessions") as connection:
        rows = connection.execute(text("SELECT name, role FROM agents ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("before", ""), ("during", "")]

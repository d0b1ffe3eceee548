"""Revision 0006 of tasks: tool servers that were registered before are as they were, and enabled."""

from alembic import command
from sqlalchemy import text

from migrations import runner
from migrations.history import History
from migrations.runner import open_target


def _upgrade_tasks(database_url: str, revision: str) -> None:
    target = open_target(database_url)
    with target.locked():
        target.prepare(None)
        with target.connect("tasks") as connection:
            history = History("tasks")
            history.config.attributes["connection"] = connection
            command.upgrade(history.config, revision)


def test_servers_and_tools_from_before_are_kept(empty_database_url: str) -> None:
    _upgrade_tasks(empty_database_url, "0002")
    server = "'time', 'stdio', '[\"/bin/time\"]', '{\"KEY\": \"x\"}', '', 5"
    with open_target(empty_database_url).connect("tasks") as connection, connection.begin():
        at = 1_000_000 if connection.dialect.name == "sqlite" else "'1970-01-01T00:00:01Z'"
        connection.execute(
            text(
                "INSERT INTO tool_servers (name, transport, command, env, url, timeout_seconds, created_at)"
                f" VALUES ({server}, {at})"
            )
        )
        connection.execute(text("INSERT INTO tools VALUES ('time.now', 'time', 'Tells the time.', '{}')"))

    runner.upgrade(empty_database_url)

    with open_target(empty_database_url).connect("tasks") as connection:
        (kept,) = connection.execute(text("SELECT * FROM tool_servers")).mappings()
        (tool,) = connection.execute(text("SELECT * FROM tools")).mappings()
    assert (kept["name"], kept["timeout_seconds"], kept["managed_by"]) == ("time", 5, "api")
    assert (kept["enabled"], kept["scopes"], kept["description"]) in ((True, [], ""), (1, "[]", ""))
    assert (kept["last_error"], kept["last_error_at"]) == ("", None)
    assert (tool["address"], tool["output_schema"]) == ("time.now", None)

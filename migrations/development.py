"""Beginning again with an empty database, which only a development database allows."""

from pathlib import Path

from migrations.applied import Applied
from migrations.errors import NotDevelopment
from migrations.history import CONFIG_FILE
from migrations.runner import LOCK_WAIT_SECONDS, open_target, upgrade


def require(database_url: str) -> str:
    """The name of the database, if it may be reset.

    It may when it bears the mark that `upgrade` with `development` sets: on PostgreSQL the setting
    `baton.environment` of the database, on SQLite the file `development` in the directory. Raises NotDevelopment.
    """
    target = open_target(database_url)
    if not target.is_development():
        raise NotDevelopment(
            f"{target.shown} is not marked as a development database, so its data cannot be dropped: "
            "only `upgrade --development` on an empty database sets the mark"
        )
    return target.name


def reset(database_url: str, *, config_file: Path = CONFIG_FILE, lock_wait: float = LOCK_WAIT_SECONDS) -> list[Applied]:
    """Drops all tables with their data and makes them anew, empty. Raises NotDevelopment, and as `upgrade` does."""
    require(database_url)
    target = open_target(database_url, lock_wait=lock_wait)
    with target.locked():
        target.drop_everything()
    return upgrade(database_url, config_file=config_file, lock_wait=lock_wait)

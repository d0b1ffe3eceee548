"""Settings that the service refuses to start with."""

from pathlib import Path
from typing import Any

import pytest

from services.chassis.config import ConfigurationError
from services.tasks.config import Settings
from services.tasks.service import build


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ({"default_timezone": "Europe/Kishinau"}, "BATON_DEFAULT_TIMEZONE"),
        ({"default_timezone": "../UTC"}, "BATON_DEFAULT_TIMEZONE"),
        ({"default_timezone": "UTC+2"}, "BATON_DEFAULT_TIMEZONE"),
        ({"pool_size": 1}, "BATON_DATABASE_POOL_SIZE"),
        ({"pool_size": 0}, "BATON_DATABASE_POOL_SIZE"),
        ({"egress_allow": "10.0.0.0/99"}, "BATON_EGRESS_ALLOW"),
    ],
)
async def test_what_would_fail_every_caller_fails_the_start(
    tmp_path: Path, setting: dict[str, Any], variable: str
) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        build(settings(tmp_path, **setting))


async def test_the_smallest_pool_and_any_zone_will_do(tmp_path: Path) -> None:
    service = build(settings(tmp_path, default_timezone="America/Argentina/Buenos_Aires", pool_size=2))
    await service.close()


def settings(directory: Path, **changes: Any) -> Settings:
    (directory / "cursor-key").write_bytes(b"a key that only tests sign with!")
    files = {"jwks_file": directory / "jwks.json", "cursor_key_file": directory / "cursor-key"}
    return Settings(database_url=f"sqlite:///{directory}/tasks.db", **files, **changes)

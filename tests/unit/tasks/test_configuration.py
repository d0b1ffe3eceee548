"""Settings that the service refuses to start with."""

from pathlib import Path
from typing import Any

import pytest

from services.chassis.config import ConfigurationError
from services.tasks.config import Settings
from services.tasks.service import build

STREAM = {"event_stream_url": "redis://127.0.0.1", "event_stream_agent": "0199AAAA-0000-7000-8000-00000000000a"}


@pytest.mark.parametrize(
    ("setting", "variable"),
    [
        ({"default_timezone": "Europe/Kishinau"}, "BATON_DEFAULT_TIMEZONE"),
        ({"default_timezone": "../UTC"}, "BATON_DEFAULT_TIMEZONE"),
        ({"default_timezone": "UTC+2"}, "BATON_DEFAULT_TIMEZONE"),
        ({"pool_size": 1}, "BATON_DATABASE_POOL_SIZE"),
        ({"pool_size": 0}, "BATON_DATABASE_POOL_SIZE"),
        ({"egress_allow": "10.0.0.0/99"}, "BATON_EGRESS_ALLOW"),
        ({"event_stream_url": "redis://127.0.0.1"}, "BATON_EVENT_STREAM_AGENT"),
        ({"event_stream_url": "redis://127.0.0.1", "event_stream_agent": "me"}, "BATON_EVENT_STREAM_AGENT"),
        (STREAM | {"event_stream_url": "http://127.0.0.1"}, "EVENT_STREAM_URL"),
        (STREAM | {"event_stream_key": "k" * 101}, "BATON_EVENT_STREAM_KEY"),
        (STREAM | {"event_stream_claim_seconds": 0.0}, "BATON_EVENT_STREAM_CLAIM_SECONDS"),
        (STREAM | {"event_stream_claim_seconds": 1e9}, "BATON_EVENT_STREAM_CLAIM_SECONDS"),
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


@pytest.mark.parametrize("url", ["redis://:pass/word@host", "redis://u:canary@host:port", "canary", "http://canary@x"])
async def test_a_url_that_is_refused_is_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        build(settings(tmp_path, **STREAM | {"event_stream_url": url}))
    assert "canary" not in str(refused.value)
    assert "word" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:6380/1", "valkey://h", "valkeys://h", "unix:///socket"])
async def test_a_stream_needs_a_url_and_an_agent(tmp_path: Path, url: str) -> None:
    service = build(settings(tmp_path, **STREAM | {"event_stream_url": url}))
    assert service.stream
    await service.close()


async def test_without_a_url_there_is_no_stream(tmp_path: Path) -> None:
    service = build(settings(tmp_path, event_stream_agent="me"))
    assert service.stream is None
    await service.close()


def settings(directory: Path, **changes: Any) -> Settings:
    (directory / "cursor-key").write_bytes(b"a key that only tests sign with!")
    files = {"jwks_file": directory / "jwks.json", "cursor_key_file": directory / "cursor-key"}
    return Settings(database_url=f"sqlite:///{directory}/tasks.db", **files, **changes)

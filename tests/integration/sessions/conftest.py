"""The sessions service, served in the test's own process on each engine."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest
from joserfc.jwk import OKPKey

from services.sessions.config import Settings
from services.sessions.service import SCHEMA, build
from tests.integration.sessions.running import Sessions
from tests.support.clock import ManualClock
from tests.support.databases import context_url
from tests.support.grpc import Signer, serve_in_process


@pytest.fixture
def migrated_url(database_url: str) -> str:
    return context_url(database_url, SCHEMA)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def settings(migrated_url: str, settings_of: Callable[[str], Settings]) -> Settings:
    return settings_of(migrated_url)


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[[str], Settings]:
    """The settings of a service with a database of which it is told the URL."""
    return lambda url: _settings(url, tmp_path)


def _settings(database_url: str, tmp_path: Path) -> Settings:
    cursor_key = tmp_path / "cursor-key"
    cursor_key.write_bytes(b"a secret that cursors are signed with")
    return Settings(
        database_url=database_url,
        signing_key_file=tmp_path / "keys" / "signing-key.json",
        audit_key_file=tmp_path / "keys" / "audit-key",
        jwks_file=tmp_path / "keys" / "jwks.json",
        cursor_key_file=cursor_key,
        # Twenty callers at once fit, so that races are races.
        pool_size=20,
    )


@pytest.fixture
async def sessions(settings: Settings, clock: ManualClock) -> AsyncIterator[Sessions]:
    service = build(settings, clock)
    signer = Signer(OKPKey.import_key(orjson.loads(settings.signing_key_file.read_bytes())))
    async with serve_in_process(service.server) as address:
        running = Sessions(settings, service, address, clock, signer)
        yield running
        for channel in running.channels:
            await channel.close()
    service.database.close()

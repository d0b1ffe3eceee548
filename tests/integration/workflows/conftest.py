"""The workflows service, served in the test's own process on each engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.workflows.config import Settings
from services.workflows.service import SCHEMA, build
from tests.integration.workflows.running import Workflows
from tests.support.clock import ManualClock
from tests.support.databases import context_url
from tests.support.grpc import Signer, serve_in_process


@pytest.fixture
def migrated_url(database_url: str) -> str:
    return context_url(database_url, SCHEMA)


@pytest.fixture
def jwks_file(tmp_path: Path) -> Path:
    return tmp_path / "jwks.json"


@pytest.fixture
def cursor_key_file(tmp_path: Path) -> Path:
    path = tmp_path / "cursor-key"
    path.write_bytes(b"k" * 32)
    return path


@pytest.fixture
async def workflows(migrated_url: str, jwks_file: Path, cursor_key_file: Path) -> AsyncIterator[Workflows]:
    signer, clock = Signer.trusted_through(jwks_file), ManualClock()
    service = build(Settings(database_url=migrated_url, jwks_file=jwks_file, cursor_key_file=cursor_key_file), clock)
    async with serve_in_process(service.server) as address:
        running = Workflows(service, address, signer, clock)
        yield running
        await running.close()
    await service.close()

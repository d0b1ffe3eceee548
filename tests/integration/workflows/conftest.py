"""The workflows service, served in the test's own process on each engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.workflows.config import Settings
from services.workflows.service import SCHEMA, build
from tests.integration.workflows.running import Workflows
from tests.support.databases import context_url
from tests.support.grpc import Signer, serve_in_process


@pytest.fixture
def migrated_url(database_url: str) -> str:
    return context_url(database_url, SCHEMA)


@pytest.fixture
def jwks_file(tmp_path: Path) -> Path:
    return tmp_path / "jwks.json"


@pytest.fixture
async def workflows(migrated_url: str, jwks_file: Path) -> AsyncIterator[Workflows]:
    signer = Signer.trusted_through(jwks_file)
    service = build(Settings(database_url=migrated_url, jwks_file=jwks_file))
    async with serve_in_process(service.server) as address:
        yield Workflows(service, address, signer)
    service.database.close()

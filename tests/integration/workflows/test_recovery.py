"""The service without its database, and when it is back."""

from pathlib import Path

import pytest
from baton.workflows.v1.template_service_pb2 import GetTemplateRequest
from baton.workflows.v1.template_service_pb2_grpc import TemplateServiceStub

from migrations import runner
from services.chassis.errors import Unavailable
from services.workflows.config import Settings
from services.workflows.service import SCHEMA, build
from tests.support.databases import PASSWORD_SECRET, context_url
from tests.support.grpc import Signer, channel_of, serve_in_process
from tests.support.processes import running

REQUEST = GetTemplateRequest(name="build")


async def test_the_service_is_unavailable_until_its_database_is_migrated(
    empty_database_url: str, jwks_file: Path, cursor_key_file: Path
) -> None:
    token = Signer.trusted_through(jwks_file).token(["workflows:read"])
    url = context_url(empty_database_url, SCHEMA)
    service = build(Settings(database_url=url, jwks_file=jwks_file, cursor_key_file=cursor_key_file))
    async with serve_in_process(service.server) as address, channel_of(address, token) as channel:
        with pytest.raises(Unavailable) as refused:
            await TemplateServiceStub(channel).GetTemplate(REQUEST)
        assert refused.value.reason == "DATABASE_UNAVAILABLE"
        with pytest.raises(Unavailable):
            await service.ready()
        runner.upgrade(empty_database_url, secret=PASSWORD_SECRET)
        await service.ready()
        assert (await TemplateServiceStub(channel).GetTemplate(REQUEST)).template.name == "build"
    await service.close()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_the_process_starts_before_its_database_and_recovers_by_itself(
    empty_database_url: str, jwks_file: Path, cursor_key_file: Path
) -> None:
    token = Signer.trusted_through(jwks_file).token(["workflows:read"])
    environment = {
        "BATON_DATABASE_URL": context_url(empty_database_url, SCHEMA),
        "BATON_JWKS_FILE": str(jwks_file),
        "BATON_CURSOR_KEY_FILE": str(cursor_key_file),
    }
    with running("services.workflows", environment) as process:
        await process.await_health("NOT_SERVING")
        runner.upgrade(empty_database_url)
        await process.await_health("SERVING")
        async with channel_of(process.address, token) as channel:
            assert (await TemplateServiceStub(channel).GetTemplate(REQUEST)).template.name == "build"
        assert process.stop() == 0

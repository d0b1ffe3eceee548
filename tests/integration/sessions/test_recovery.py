"""The service without its database, and when it is back."""

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from baton.api.v1.auth_service_pb2 import ExchangeTokenRequest
from baton.api.v1.auth_service_pb2_grpc import AuthServiceStub
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest, GetAgentRequest

from migrations import access, runner
from services.chassis.database import Database
from services.chassis.errors import Unauthenticated, Unavailable
from services.sessions import tokens
from services.sessions.bootstrap import SYSTEM, mint_to_file
from services.sessions.config import Settings
from services.sessions.service import SCHEMA, build
from tests.integration.sessions.running import Sessions
from tests.support.databases import PASSWORD_SECRET, context_url
from tests.support.grpc import channel_of, serve_in_process
from tests.support.postgres import Postgres
from tests.support.processes import running
from tests.support.waiting import await_until


async def test_the_service_is_unavailable_until_its_database_is_migrated(
    empty_database_url: str, tmp_path: Path
) -> None:
    cursor_key = tmp_path / "cursor-key"
    cursor_key.write_bytes(b"a secret that cursors are signed with")
    service = build(
        Settings(
            database_url=context_url(empty_database_url, SCHEMA),
            signing_key_file=tmp_path / "signing-key.json",
            audit_key_file=tmp_path / "audit-key",
            jwks_file=tmp_path / "jwks.json",
            cursor_key_file=cursor_key,
        )
    )
    request = ExchangeTokenRequest(token=tokens.new_token())
    async with serve_in_process(service.server) as address, channel_of(address) as channel:
        with pytest.raises(Unavailable) as refused:
            await AuthServiceStub(channel).ExchangeToken(request)
        assert refused.value.reason == "DATABASE_UNAVAILABLE"
        with pytest.raises(Unavailable):
            await service.ready()
        runner.upgrade(empty_database_url, secret=PASSWORD_SECRET)
        await service.ready()
        with pytest.raises(Unauthenticated):
            await AuthServiceStub(channel).ExchangeToken(request)
    service.database.close()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_login_without_tables_is_an_unmigrated_database_too(empty_database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(empty_database_url) as connection:
        access.create_schemas_and_logins(connection, str(connection.info.dbname), PASSWORD_SECRET)
    admin_token = tmp_path / "admin-token"
    with closing(Database(context_url(empty_database_url, SCHEMA), schema=SCHEMA, pool_size=1)) as database:
        with pytest.raises(Unavailable) as refused:
            mint_to_file(database, SYSTEM.name, SYSTEM.scopes, admin_token)
        assert refused.value.reason == "DATABASE_UNAVAILABLE"
        runner.upgrade(empty_database_url, secret=PASSWORD_SECRET)
        assert mint_to_file(database, SYSTEM.name, SYSTEM.scopes, admin_token)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_the_service_survives_a_stop_of_postgres(sessions: Sessions, postgres: Postgres) -> None:
    admin = sessions.caller(["admin"])
    created = await admin.CreateAgent(CreateAgentRequest(name="scribe", scopes=["tasks:read"]))
    request = GetAgentRequest(agent_id=created.agent.id)
    with postgres.stopped():
        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                await admin.GetAgent(request)
            assert refused.value.reason == "DATABASE_UNAVAILABLE"
            assert refused.value.retry_after == 1
        with pytest.raises(Unavailable):
            await sessions.service.ready()

    async def found_again() -> bool:
        try:
            return (await admin.GetAgent(request)).agent == created.agent
        except Unavailable:
            return False

    await await_until(found_again)
    await sessions.service.ready()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_the_process_starts_before_its_database_and_recovers_by_itself(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = context_url(empty_database_url, SCHEMA)
    cursor_key = tmp_path / "cursor-key"
    cursor_key.write_bytes(b"a secret that cursors are signed with")
    environment = {
        "BATON_CURSOR_KEY_FILE": str(cursor_key),
        "BATON_DATABASE_URL": url,
        "BATON_SIGNING_KEY_FILE": str(tmp_path / "signing-key.json"),
        "BATON_AUDIT_KEY_FILE": str(tmp_path / "audit-key"),
        "BATON_JWKS_FILE": str(tmp_path / "jwks.json"),
    }
    with running("services.sessions", environment) as process:
        await process.await_health("NOT_SERVING")
        runner.upgrade(empty_database_url)
        await process.await_health("SERVING")
        admin_token = tmp_path / "admin-token"
        with closing(Database(url, schema=SCHEMA, pool_size=1)) as database:
            mint_to_file(database, SYSTEM.name, SYSTEM.scopes, admin_token)
        async with channel_of(process.address) as channel:
            answer = await AuthServiceStub(channel).ExchangeToken(ExchangeTokenRequest(token=admin_token.read_text()))
        assert answer.access_token
        assert process.stop() == 0

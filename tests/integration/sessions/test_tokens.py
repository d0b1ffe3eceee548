"""Minting, exchanging and revoking tokens."""

from datetime import UTC, timedelta

import pytest
from baton.api.v1.auth_service_pb2 import ExchangeTokenRequest, ExchangeTokenResponse
from baton.sessions.v1.agent_service_pb2 import (
    CreateAgentRequest,
    CreateTokenRequest,
    CreateTokenResponse,
    RevokeTokenRequest,
)
from joserfc.jws import extract_compact
from sqlalchemy import Connection, select

from services.chassis.auth import Verifier
from services.chassis.clock import Clock
from services.chassis.errors import Aborted, InvalidArgument, NotFound, PermissionDenied, ServiceError, Unauthenticated
from services.chassis.ids import new_id
from services.sessions import tokens
from services.sessions.operations import agent as operations
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions


async def agent_with(sessions: Sessions, *scopes: str) -> str:
    """The id of a new agent."""
    request = CreateAgentRequest(name=f"agent {new_id()}", scopes=scopes)
    return (await sessions.caller(["admin"]).CreateAgent(request)).agent.id


async def minted(sessions: Sessions, agent_id: str, *scopes: str, seconds: int | None = None) -> CreateTokenResponse:
    request = CreateTokenRequest(agent_id=agent_id, scopes=scopes, expires_in_seconds=seconds)
    return await sessions.caller(["admin"]).CreateToken(request)


async def exchanged(sessions: Sessions, token: str) -> ExchangeTokenResponse:
    return await sessions.auth().ExchangeToken(ExchangeTokenRequest(token=token))


async def refusal(sessions: Sessions, token: str) -> ServiceError:
    with pytest.raises(Unauthenticated) as refused:
        await exchanged(sessions, token)
    return refused.value


async def test_a_minted_token_is_exchanged_for_one_that_services_verify(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read", "runs:read")
    token = await minted(sessions, agent_id)
    assert list(token.scopes) == ["runs:read", "tasks:read"]
    answer = await exchanged(sessions, token.token)
    caller, _ = Verifier(sessions.settings.jwks_file, sessions.clock).verify(answer.access_token)
    assert (caller.agent_id, caller.token_id) == (agent_id, token.id)
    assert caller.scopes == {"tasks:read", "runs:read"}
    assert answer.expires_at.ToDatetime(UTC) == sessions.clock.now() + timedelta(seconds=60)
    assert extract_compact(answer.access_token.encode()).headers()["alg"] == "Ed25519"


async def test_a_token_lives_ninety_days_unless_told_otherwise(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    usual, short = await minted(sessions, agent_id), await minted(sessions, agent_id, seconds=3600)
    assert usual.expires_at.ToDatetime(UTC) == sessions.clock.now() + timedelta(days=90)
    assert short.expires_at.ToDatetime(UTC) == sessions.clock.now() + timedelta(hours=1)


@pytest.mark.parametrize("seconds", [0, -1, 59, 31_536_001])
async def test_a_lifetime_outside_its_limits_is_refused(sessions: Sessions, seconds: int) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    with pytest.raises(InvalidArgument) as refused:
        await minted(sessions, agent_id, seconds=seconds)
    assert [violation.field for violation in refused.value.violations] == ["expires_in_seconds"]


async def test_a_token_may_hold_less_than_its_agent(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "admin")
    token = await minted(sessions, agent_id, "tasks:read")
    answer = await exchanged(sessions, token.token)
    assert Verifier(sessions.settings.jwks_file, sessions.clock).verify(answer.access_token)[0].scopes == {"tasks:read"}


async def test_a_token_never_holds_more_than_its_agent(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    with pytest.raises(PermissionDenied, match="the agent does not hold tasks:write") as refused:
        await minted(sessions, agent_id, "tasks:read", "tasks:write")
    assert refused.value.reason == "SCOPES_NOT_HELD"


@pytest.mark.parametrize("scopes", [["tasks:write"], []], ids=["named", "all of the agent's"])
async def test_nobody_mints_a_token_that_may_do_more_than_they(sessions: Sessions, scopes: list[str]) -> None:
    agent_id = await agent_with(sessions, "tasks:read", "tasks:write")
    limited = sessions.caller(["agents:admin", "tasks:read"])
    with pytest.raises(PermissionDenied, match="the caller does not hold tasks:write") as refused:
        await limited.CreateToken(CreateTokenRequest(agent_id=agent_id, scopes=scopes))
    assert refused.value.reason == "SCOPES_NOT_HELD"


async def test_a_token_loses_what_its_agent_loses(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read", "tasks:write")
    token = await minted(sessions, agent_id)

    def narrow(connection: Connection, clock: Clock) -> None:
        name = operations.get_agent(connection, agent_id=agent_id).name
        operations.ensure_agent(connection, agent_id=agent_id, name=name, scopes=["tasks:read"], clock=clock)

    await sessions.database.transact(narrow)
    answer = await exchanged(sessions, token.token)
    assert Verifier(sessions.settings.jwks_file, sessions.clock).verify(answer.access_token)[0].scopes == {"tasks:read"}


async def test_a_scope_that_does_not_exist_is_named(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "admin")
    with pytest.raises(InvalidArgument) as refused:
        await minted(sessions, agent_id, "tasks:read", "tasks:fly")
    assert [violation.field for violation in refused.value.violations] == ["scopes[1]"]


async def test_no_token_for_an_agent_that_is_not_there(sessions: Sessions) -> None:
    with pytest.raises(NotFound) as refused:
        await minted(sessions, new_id())
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_the_token_itself_is_stored_nowhere(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    request = CreateTokenRequest(agent_id=agent_id, request_id="mint once")
    token = (await sessions.caller(["admin"]).CreateToken(request)).token
    secret = token.split("_")[2]

    def everything(connection: Connection, clock: Clock) -> str:
        return repr(
            [tuple(row) for table in tables.metadata.sorted_tables for row in connection.execute(select(table))]
        )

    stored = await sessions.database.read(everything)
    assert token.split("_")[1] in stored
    assert repr(tokens.digest(token)) in stored
    assert secret not in stored


async def test_a_repeated_request_does_not_show_or_mint_a_token_again(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    admin = sessions.caller(["admin"], agent_id=new_id())
    request = CreateTokenRequest(agent_id=agent_id, request_id="mint once")
    await admin.CreateToken(request)
    with pytest.raises(Aborted):
        await admin.CreateToken(request)
    stored = await sessions.database.read(
        lambda connection, clock: connection.execute(select(tables.tokens.c.id)).all()
    )
    assert len(stored) == 1


async def test_a_bad_token_is_refused_without_saying_why(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    admin = sessions.caller(["admin"])
    revoked, expired = await minted(sessions, agent_id), await minted(sessions, agent_id, seconds=60)
    await admin.RevokeToken(RevokeTokenRequest(agent_id=agent_id, token_id=revoked.id))
    sessions.clock.advance(seconds=60)
    good = await minted(sessions, agent_id)
    # The key id of a good token with another secret, and a checksum that is right.
    forged = tokens.new_token().split("_")
    forged_body = "_".join(["baton", good.token.split("_")[1], forged[2]])
    bad = {
        "malformed": "garbage",
        "mistyped": good.token[:-1] + ("0" if good.token[-1] != "0" else "1"),
        "unknown": tokens.new_token(),
        "forged": f"{forged_body}_{tokens._checksum(forged_body)}",
        "revoked": revoked.token,
        "expired": expired.token,
    }
    refusals = {why: await refusal(sessions, token) for why, token in bad.items()}
    assert {error.reason for error in refusals.values()} == {"TOKEN_INVALID"}
    assert len({error.message for error in refusals.values()}) == 1
    await exchanged(sessions, good.token)


@pytest.mark.parametrize("token", ["", "x" * 513])
async def test_an_exchange_outside_the_contract_is_refused(sessions: Sessions, token: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await exchanged(sessions, token)
    assert [violation.field for violation in refused.value.violations] == ["token"]


async def test_an_access_token_ends_with_the_token_it_was_exchanged_for(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    token = await minted(sessions, agent_id, seconds=60)
    sessions.clock.advance(seconds=45)
    answer = await exchanged(sessions, token.token)
    assert answer.expires_at == token.expires_at


async def test_revoking_again_keeps_the_first_time(sessions: Sessions) -> None:
    agent_id = await agent_with(sessions, "tasks:read")
    token = await minted(sessions, agent_id)
    admin, request = sessions.caller(["admin"]), RevokeTokenRequest(agent_id=agent_id, token_id=token.id)
    first = await admin.RevokeToken(request)
    assert first.id == token.id
    assert first.revoked_at.ToDatetime(UTC) == sessions.clock.now()
    sessions.clock.advance(hours=1)
    assert await admin.RevokeToken(request) == first


async def test_a_token_is_revoked_only_through_its_own_agent(sessions: Sessions) -> None:
    owner, other = await agent_with(sessions, "tasks:read"), await agent_with(sessions, "tasks:read")
    token = await minted(sessions, owner)
    for agent_id, token_id in ((other, token.id), (owner, new_id())):
        with pytest.raises(NotFound) as refused:
            await sessions.caller(["admin"]).RevokeToken(RevokeTokenRequest(agent_id=agent_id, token_id=token_id))
        assert refused.value.reason == "TOKEN_NOT_FOUND"
    await exchanged(sessions, token.token)


async def test_times_are_kept_to_the_microsecond(sessions: Sessions) -> None:
    sessions.clock.advance(microseconds=123_457)
    token = await minted(sessions, await agent_with(sessions, "tasks:read"))
    assert token.expires_at.ToDatetime(UTC) == sessions.clock.now() + timedelta(days=90)
    answer = await exchanged(sessions, token.token)
    # A JWT counts whole seconds, so the answer does too, and never promises more than it.
    assert answer.expires_at.ToDatetime(UTC) == (sessions.clock.now() + timedelta(seconds=60)).replace(microsecond=0)

"""A token is rotated into a new one, and goes on for a while."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from baton.sessions.v1.agent_service_pb2 import (
    ListTokensRequest,
    RevokeTokenRequest,
    RotateTokenRequest,
    RotateTokenResponse,
    UpdateAgentRequest,
)
from baton.sessions.v1.credential_service_pb2 import CreateCredentialsRequest, ObtainTokenRequest
from baton.sessions.v1.token_pb2 import TokenKind

from services.chassis.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
)
from services.chassis.ids import new_id
from services.chassis.timestamps import from_timestamp
from tests.integration.sessions.running import Sessions


async def rotated(sessions: Sessions, agent_id: str, token_id: str, **fields: Any) -> RotateTokenResponse:
    request = RotateTokenRequest(agent_id=agent_id, token_id=token_id, **fields)
    return await sessions.caller(["admin"]).RotateToken(request)


async def test_both_tokens_work_for_the_seconds_that_were_asked_for(sessions: Sessions) -> None:
    agent = await sessions.agent("tasks:read", "runs:read")
    old = await sessions.minted(agent.id, scopes=["tasks:read"])
    new = await rotated(sessions, agent.id, old.id, overlap_seconds=30)
    assert (new.previous_id, list(new.scopes)) == (old.id, ["tasks:read"])
    assert from_timestamp(new.previous_expires_at) == sessions.clock.now() + timedelta(seconds=30)
    assert from_timestamp(new.expires_at) == sessions.clock.now() + timedelta(days=90)
    assert (await sessions.exchanged(new.token)).scopes == {"tasks:read"}
    sessions.clock.advance(seconds=30, microseconds=-1)
    assert await sessions.opens(old.token)
    sessions.clock.advance(microseconds=1)
    assert not await sessions.opens(old.token)
    assert await sessions.opens(new.token)


async def test_a_token_goes_on_for_a_day_unless_told_otherwise(sessions: Sessions) -> None:
    agent = await sessions.agent()
    old = await sessions.minted(agent.id)
    new = await rotated(sessions, agent.id, old.id)
    assert from_timestamp(new.previous_expires_at) == sessions.clock.now() + timedelta(days=1)


async def test_a_token_may_end_at_once(sessions: Sessions) -> None:
    agent = await sessions.agent()
    old = await sessions.minted(agent.id)
    new = await rotated(sessions, agent.id, old.id, overlap_seconds=0, expires_in_seconds=60)
    assert not await sessions.opens(old.token)
    assert from_timestamp(new.expires_at) == sessions.clock.now() + timedelta(seconds=60)


async def test_a_token_does_not_go_on_beyond_its_own_end(sessions: Sessions) -> None:
    agent = await sessions.agent()
    old = await sessions.minted(agent.id, expires_in_seconds=60)
    assert (await rotated(sessions, agent.id, old.id)).previous_expires_at == old.expires_at


async def test_a_token_is_rotated_once(sessions: Sessions) -> None:
    agent = await sessions.agent()
    old = await sessions.minted(agent.id)

    async def attempt() -> str:
        try:
            return (await rotated(sessions, agent.id, old.id)).id
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt() for _ in range(20)))
    assert answers.count("TOKEN_NOT_ROTATABLE") == 19
    (new_token_id,) = set(answers) - {"TOKEN_NOT_ROTATABLE"}
    with pytest.raises(FailedPrecondition, match=f"was rotated before, into {new_token_id}"):
        await rotated(sessions, agent.id, old.id)
    # The new one is rotated like any other.
    await rotated(sessions, agent.id, new_token_id)


async def test_what_has_ended_is_not_rotated(sessions: Sessions) -> None:
    agent = await sessions.agent()
    revoked, expired = await sessions.minted(agent.id), await sessions.minted(agent.id, expires_in_seconds=60)
    await sessions.caller(["admin"]).RevokeToken(RevokeTokenRequest(agent_id=agent.id, token_id=revoked.id))
    sessions.clock.advance(seconds=60)
    for token in (revoked, expired):
        with pytest.raises(FailedPrecondition, match="was revoked or has expired") as refused:
            await rotated(sessions, agent.id, token.id)
        assert refused.value.reason == "TOKEN_NOT_ROTATABLE"


async def test_what_was_obtained_with_a_secret_is_not_rotated(sessions: Sessions) -> None:
    agent = await sessions.agent()
    secret = (await sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=agent.id))).agent_secret
    await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))
    for token in (await sessions.caller(["admin"]).ListTokens(ListTokensRequest(agent_id=agent.id))).items:
        with pytest.raises(FailedPrecondition, match="obtained with a secret") as refused:
            await rotated(sessions, agent.id, token.id)
        assert refused.value.reason == "TOKEN_NOT_ROTATABLE"


async def test_nobody_gets_by_rotating_what_they_do_not_hold(sessions: Sessions) -> None:
    agent = await sessions.agent("tasks:read", "tasks:write")
    old = await sessions.minted(agent.id)
    limited = sessions.caller(["agents:admin", "tasks:read"])
    with pytest.raises(PermissionDenied, match="the caller does not hold tasks:write") as refused:
        await limited.RotateToken(RotateTokenRequest(agent_id=agent.id, token_id=old.id))
    assert refused.value.reason == "SCOPES_NOT_HELD"
    await sessions.caller(["admin"]).UpdateAgent(UpdateAgentRequest(agent_id=agent.id, scopes=["tasks:read"]))
    with pytest.raises(PermissionDenied, match="the agent does not hold tasks:write"):
        await rotated(sessions, agent.id, old.id)


async def test_a_token_is_rotated_only_through_its_own_agent(sessions: Sessions) -> None:
    owner, other = await sessions.agent(), await sessions.agent()
    token = await sessions.minted(owner.id)
    for agent_id, token_id, reason in (
        (other.id, token.id, "TOKEN_NOT_FOUND"),
        (owner.id, new_id(), "TOKEN_NOT_FOUND"),
        (new_id(), token.id, "AGENT_NOT_FOUND"),
    ):
        with pytest.raises(NotFound) as refused:
            await rotated(sessions, agent_id, token_id)
        assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": 604_801}, "overlap_seconds"),
        ({"expires_in_seconds": 59}, "expires_in_seconds"),
        ({"expires_in_seconds": 31_536_001}, "expires_in_seconds"),
        ({"token_id": "garbage"}, "token_id"),
        ({"request_id": "k" * 256}, "request_id"),
    ],
)
async def test_a_rotation_outside_the_contract_is_refused(
    sessions: Sessions, fields: dict[str, Any], field: str
) -> None:
    agent = await sessions.agent()
    request = RotateTokenRequest(**{"agent_id": agent.id, "token_id": new_id()} | fields)
    with pytest.raises(InvalidArgument) as refused:
        await sessions.caller(["admin"]).RotateToken(request)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_repeated_rotation_shows_nothing_again(sessions: Sessions) -> None:
    agent = await sessions.agent()
    old = await sessions.minted(agent.id)
    admin = sessions.caller(["admin"], agent_id=new_id())
    request = RotateTokenRequest(agent_id=agent.id, token_id=old.id, request_id="rotate once")
    await admin.RotateToken(request)
    with pytest.raises(Aborted) as refused:
        await admin.RotateToken(request)
    assert refused.value.reason == "ANSWER_NOT_REPEATABLE"


async def test_the_audit_is_told_of_tokens_and_not_what_they_are(sessions: Sessions) -> None:
    agent = await sessions.agent()
    admin_id = new_id()
    admin = sessions.caller(["admin"], agent_id=admin_id)
    old = await sessions.minted(agent.id)
    request = RotateTokenRequest(agent_id=agent.id, token_id=old.id, request_id="key-1")
    new = await admin.RotateToken(request)
    await admin.RevokeToken(RevokeTokenRequest(agent_id=agent.id, token_id=new.id, request_id="key-2"))
    _, created, rotation, revocation = await sessions.audited()
    assert [entry["action"] for entry in (created, rotation, revocation)] == [
        "token.create", "token.rotate", "token.revoke",
    ]  # fmt: skip
    assert (rotation["actor"], rotation["resource"]) == (admin_id, f"agent/{agent.id}")
    assert (rotation["before"]["token_id"], rotation["after"]["token_id"]) == (old.id, new.id)
    assert (rotation["request_id"], revocation["request_id"]) == ("key-1", "key-2")
    for secret in (old.token.split("_")[2], new.token.split("_")[2]):
        assert secret not in repr((created, rotation, revocation))


async def test_tokens_are_listed_newest_first_without_what_they_are(sessions: Sessions) -> None:
    agent = await sessions.agent("tasks:read", "runs:read")
    admin_id = new_id()
    admin = sessions.caller(["admin"], agent_id=admin_id)
    old = await sessions.minted(agent.id, scopes=["tasks:read"])
    new = await admin.RotateToken(RotateTokenRequest(agent_id=agent.id, token_id=old.id, overlap_seconds=60))
    second, first = (await admin.ListTokens(ListTokensRequest(agent_id=agent.id))).items
    assert (first.id, first.replaced_by, first.key_id) == (old.id, new.id, old.token.split("_")[1])
    assert (second.id, second.created_by, second.agent_id) == (new.id, admin_id, agent.id)
    assert not second.HasField("replaced_by")
    assert (first.kind, list(first.scopes)) == (TokenKind.TOKEN_KIND_MINTED, ["tasks:read"])
    assert first.expires_at == new.previous_expires_at
    assert not any(token.split("_")[2] in repr((first, second)) for token in (old.token, new.token))


async def test_a_list_of_tokens_is_filtered_and_paged(sessions: Sessions) -> None:
    agent, other = await sessions.agent(), await sessions.agent()
    admin = sessions.caller(["admin"])
    minted = [await sessions.minted(agent.id, expires_in_seconds=60 * (number + 1)) for number in range(4)]
    await sessions.minted(other.id)
    secret = (await sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=agent.id))).agent_secret
    await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent.id, agent_secret=secret))
    await admin.RevokeToken(RevokeTokenRequest(agent_id=agent.id, token_id=minted[3].id))
    sessions.clock.advance(seconds=60)

    async def ids(**fields: Any) -> list[str]:
        return [one.id for one in (await admin.ListTokens(ListTokensRequest(agent_id=agent.id, **fields))).items]

    kind = {"kind": TokenKind.TOKEN_KIND_MINTED}
    assert await ids(**kind) == [token.id for token in reversed(minted)]
    assert await ids(**kind, live_only=True) == [minted[2].id, minted[1].id]
    assert len(await ids(kind=TokenKind.TOKEN_KIND_REFRESH)) == len(await ids(kind=TokenKind.TOKEN_KIND_ACCESS)) == 1
    page = await admin.ListTokens(ListTokensRequest(agent_id=agent.id, **kind, limit=3))
    assert page.has_more
    assert await ids(**kind, limit=3, cursor=page.next_cursor) == [minted[0].id]
    with pytest.raises(InvalidArgument) as refused:
        await admin.ListTokens(ListTokensRequest(agent_id=other.id, **kind, cursor=page.next_cursor))
    assert refused.value.reason == "CURSOR_INVALID"
    with pytest.raises(NotFound) as missing:
        await admin.ListTokens(ListTokensRequest(agent_id=new_id()))
    assert missing.value.reason == "AGENT_NOT_FOUND"

"""Tokens that agents obtain with a secret of their own."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from baton.sessions.v1.agent_pb2 import Agent
from baton.sessions.v1.agent_service_pb2 import (
    ArchiveAgentRequest,
    ListTokensRequest,
    RevokeTokenRequest,
    UpdateAgentRequest,
)
from baton.sessions.v1.credential_service_pb2 import (
    CreateCredentialsRequest,
    ObtainTokenRequest,
    ObtainTokenResponse,
    RefreshTokenRequest,
    RefreshTokenResponse,
    SurrenderTokenRequest,
    SurrenderTokenResponse,
)
from baton.sessions.v1.token_pb2 import TokenKind
from sqlalchemy import create_engine, select

from services.chassis.errors import Aborted, InvalidArgument, NotFound, PermissionDenied, ServiceError, Unauthenticated
from services.chassis.ids import new_id
from services.sessions import tokens
from services.sessions.store import tables
from tests.integration.sessions.running import Sessions

Pair = ObtainTokenResponse | RefreshTokenResponse


async def secret_of(sessions: Sessions, agent: Agent) -> str:
    request = CreateCredentialsRequest(agent_id=agent.id)
    return (await sessions.credentials().CreateCredentials(request)).agent_secret


async def obtained(sessions: Sessions, agent: Agent, secret: str, **fields: Any) -> ObtainTokenResponse:
    request = ObtainTokenRequest(agent_id=agent.id, agent_secret=secret, **fields)
    return await sessions.anybody().ObtainToken(request)


async def signed_in(sessions: Sessions, *scopes: str) -> tuple[Agent, Pair]:
    """A new agent, and what it got for its secret."""
    agent = await sessions.agent(*scopes)
    return agent, await obtained(sessions, agent, await secret_of(sessions, agent))


async def refreshed(sessions: Sessions, pair: Pair, **fields: Any) -> RefreshTokenResponse:
    request = RefreshTokenRequest(refresh_token=pair.refresh_token, **fields)
    return await sessions.anybody().RefreshToken(request)


async def surrendered(sessions: Sessions, token: str, **fields: Any) -> SurrenderTokenResponse:
    return await sessions.anybody().SurrenderToken(SurrenderTokenRequest(refresh_token=token, **fields))


async def is_refused(attempt: Awaitable[Any]) -> bool:
    with pytest.raises(Unauthenticated) as refused:
        await attempt
    return refused.value.reason == "TOKEN_INVALID"


async def test_an_agent_gets_for_its_secret_what_it_may_do(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions, "tasks:read", "runs:read")
    assert (pair.token_type, pair.expires_in, pair.scope) == ("bearer", 3600, "runs:read tasks:read")
    caller = await sessions.exchanged(pair.access_token)
    assert (caller.agent_id, caller.scopes) == (agent.id, {"tasks:read", "runs:read"})
    sessions.clock.advance(hours=1, microseconds=-1)
    assert await sessions.opens(pair.access_token)
    sessions.clock.advance(microseconds=1)
    assert not await sessions.opens(pair.access_token)


async def test_a_refresh_token_opens_nothing_itself(sessions: Sessions) -> None:
    _, pair = await signed_in(sessions)
    assert not await sessions.opens(pair.refresh_token)


async def test_no_other_token_refreshes(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions)
    minted = await sessions.minted(agent.id)
    for text in (pair.access_token, minted.token):
        assert await is_refused(sessions.anybody().RefreshToken(RefreshTokenRequest(refresh_token=text)))


async def test_a_secret_is_no_token(sessions: Sessions) -> None:
    agent = await sessions.agent()
    secret = await secret_of(sessions, agent)
    assert not await sessions.opens(secret)
    assert await is_refused(surrendered(sessions, secret))


async def test_neither_secret_nor_tokens_are_stored(sessions: Sessions) -> None:
    agent = await sessions.agent()
    request = CreateCredentialsRequest(agent_id=agent.id, request_id="key-1")
    secret = (await sessions.credentials().CreateCredentials(request)).agent_secret
    pair = await obtained(sessions, agent, secret, request_id="key-2")
    next_pair = await refreshed(sessions, pair, request_id="key-3")

    def everything(connection: Any, clock: Any) -> str:
        return repr(
            [tuple(row) for table in tables.metadata.sorted_tables for row in connection.execute(select(table))]
        )

    stored = await sessions.database.read(everything)
    assert repr(tokens.digest(secret)) in stored
    texts = (secret, pair.access_token, pair.refresh_token, next_pair.access_token, next_pair.refresh_token)
    assert not any(text.split("_")[2] in stored for text in texts)


async def test_a_new_secret_ends_the_one_before_and_what_was_obtained_with_it(sessions: Sessions) -> None:
    agent = await sessions.agent()
    minted = await sessions.minted(agent.id)
    first = await secret_of(sessions, agent)
    pair = await obtained(sessions, agent, first)
    second = await secret_of(sessions, agent)
    with pytest.raises(Unauthenticated):
        await obtained(sessions, agent, first)
    assert not await sessions.opens(pair.access_token)
    assert await is_refused(refreshed(sessions, pair))
    assert await sessions.opens((await obtained(sessions, agent, second)).access_token)
    # What somebody minted is another matter.
    assert await sessions.opens(minted.token)


async def test_nobody_gives_a_secret_to_an_agent_that_may_do_more(sessions: Sessions) -> None:
    agent = await sessions.agent("admin")
    with pytest.raises(PermissionDenied) as refused:
        await sessions.credentials(["agents:admin", "tasks:read"]).CreateCredentials(
            CreateCredentialsRequest(agent_id=agent.id)
        )
    assert refused.value.reason == "SCOPES_NOT_HELD"


async def test_an_agent_that_is_not_there_gets_no_secret(sessions: Sessions) -> None:
    with pytest.raises(NotFound) as refused:
        await sessions.credentials().CreateCredentials(CreateCredentialsRequest(agent_id=new_id()))
    assert refused.value.reason == "AGENT_NOT_FOUND"


async def test_whatever_is_wrong_the_refusal_is_one_and_the_same(sessions: Sessions) -> None:
    agent, other, without, gone = [await sessions.agent() for _ in range(4)]
    secret, others_secret, gones_secret = [await secret_of(sessions, one) for one in (agent, other, gone)]
    replaced = secret
    secret = await secret_of(sessions, agent)
    await sessions.caller(["admin"]).ArchiveAgent(ArchiveAgentRequest(agent_id=gone.id))
    bad = {
        "unknown agent": (new_id(), secret),
        "no secret": (without.id, secret),
        "another one's": (agent.id, others_secret),
        "replaced": (agent.id, replaced),
        "archived": (gone.id, gones_secret),
        "malformed": (agent.id, "nope"),
        "no text at all": (agent.id, "\ud7ff🎻"),
        "mistyped": (agent.id, secret[:-1] + ("0" if secret[-1] != "0" else "1")),
        "a token": (agent.id, (await sessions.minted(agent.id)).token),
    }
    told = set()
    for agent_id, text in bad.values():
        with pytest.raises(Unauthenticated) as refused:
            await sessions.anybody().ObtainToken(ObtainTokenRequest(agent_id=agent_id, agent_secret=text))
        told.add((refused.value.reason, refused.value.message, tuple(refused.value.metadata)))
    assert {reason for reason, _, _ in told} == {"SECRET_INVALID"}
    assert len(told) == 1
    assert (await obtained(sessions, agent, secret)).access_token


@contextmanager
def writing_on_sqlite(url: str) -> Iterator[None]:
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
    engine.dispose()


@contextmanager
def writing_on_postgres(url: str) -> Iterator[None]:
    with psycopg.connect(url, options="-c search_path=sessions") as connection:
        for table in ("agents", "agent_secrets", "tokens", "outbox", "idempotency_keys"):
            connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
        yield


async def test_a_refused_attempt_writes_nothing(sessions: Sessions, database_url: str) -> None:
    agent, pair = await signed_in(sessions)
    expired = await refreshed(sessions, pair)
    sessions.clock.advance(days=31)
    writing: Callable[[str], AbstractContextManager[None]] = (
        writing_on_postgres if sessions.database.is_postgres else writing_on_sqlite
    )
    anybody = sessions.anybody()
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: obtained(sessions, agent, tokens.new_token(), request_id="key"),
        lambda: anybody.ObtainToken(ObtainTokenRequest(agent_id=new_id(), agent_secret="nope")),
        lambda: anybody.RefreshToken(RefreshTokenRequest(refresh_token=tokens.new_token(), request_id="key")),
        lambda: anybody.SurrenderToken(SurrenderTokenRequest(refresh_token=tokens.new_token())),
    ]
    if sessions.database.is_postgres:
        # On SQLite one who has had a token waits for the turn to write, and then does not.
        attempts += [lambda: refreshed(sessions, pair), lambda: refreshed(sessions, expired)]
    # Whoever would write would have to wait.
    with writing(database_url if sessions.database.is_postgres else sessions.settings.database_url):
        for attempt in attempts:
            with pytest.raises(Unauthenticated):
                await asyncio.wait_for(attempt(), 2)
    assert await is_refused(refreshed(sessions, expired))


async def test_a_refresh_token_is_good_once_for_the_next_pair(sessions: Sessions) -> None:
    agent, first = await signed_in(sessions, "tasks:read", "runs:read")
    second = await refreshed(sessions, first)
    assert (second.scope, second.expires_in, second.token_type) == (first.scope, 3600, "bearer")
    assert len({first.access_token, first.refresh_token, second.access_token, second.refresh_token}) == 4
    assert await is_refused(refreshed(sessions, first))
    third = await refreshed(sessions, second)
    assert (await sessions.exchanged(third.access_token)).agent_id == agent.id


async def test_a_refresh_token_lives_thirty_days(sessions: Sessions) -> None:
    _, pair = await signed_in(sessions)
    sessions.clock.advance(days=30, microseconds=-1)
    pair = await refreshed(sessions, pair)
    sessions.clock.advance(days=30)
    assert await is_refused(refreshed(sessions, pair))


async def test_of_twenty_who_refresh_at_once_one_does(sessions: Sessions) -> None:
    _, pair = await signed_in(sessions)

    async def attempt() -> Pair | str:
        try:
            return await refreshed(sessions, pair)
        except ServiceError as error:
            return error.reason

    answers = await asyncio.gather(*(attempt() for _ in range(20)))
    (winner,) = [answer for answer in answers if not isinstance(answer, str)]
    assert answers.count("TOKEN_INVALID") == 19
    # A client that has sent it twice loses nothing.
    assert await sessions.opens(winner.access_token)
    assert await refreshed(sessions, winner)


async def test_a_used_refresh_token_that_comes_again_later_ends_all_that_came_of_it(sessions: Sessions) -> None:
    agent, first = await signed_in(sessions)
    stolen = await refreshed(sessions, first)
    minted = await sessions.minted(agent.id)
    sessions.clock.advance(seconds=10)
    assert await is_refused(refreshed(sessions, first))
    assert await sessions.opens(stolen.access_token)
    sessions.clock.advance(microseconds=1)
    assert await is_refused(refreshed(sessions, first))
    assert not await sessions.opens(stolen.access_token)
    assert await is_refused(refreshed(sessions, stolen))
    assert await sessions.opens(minted.token)
    # It is told once, however often it comes.
    assert await is_refused(refreshed(sessions, first))
    actions = [entry["action"] for entry in await sessions.audited()]
    assert actions.count("token.revoke_reused") == 1


async def test_a_refresh_is_refused_when_the_agent_holds_less(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions, "tasks:read", "tasks:write")
    admin = sessions.caller(["admin"])
    await admin.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, scopes=["tasks:read", "runs:read"]))
    assert await is_refused(refreshed(sessions, pair))
    await admin.UpdateAgent(UpdateAgentRequest(agent_id=agent.id, scopes=["tasks:read", "tasks:write", "runs:read"]))
    # What it gained since then takes its secret.
    assert (await refreshed(sessions, pair)).scope == "tasks:read tasks:write"


@pytest.mark.parametrize("generation", [0, 1, 2])
async def test_surrendering_a_refresh_token_ends_all_that_came_of_it(sessions: Sessions, generation: int) -> None:
    _, first = await signed_in(sessions)
    pairs: list[Pair] = [first]
    for _ in range(2):
        pairs.append(await refreshed(sessions, pairs[-1]))
    answer = await surrendered(sessions, pairs[generation].refresh_token)
    assert answer.success
    assert not any([await sessions.opens(pair.access_token) for pair in pairs])
    assert all([await is_refused(refreshed(sessions, pair)) for pair in pairs])


async def test_surrendering_ends_nothing_else(sessions: Sessions) -> None:
    agent = await sessions.agent()
    secret = await secret_of(sessions, agent)
    one, other = await obtained(sessions, agent, secret), await obtained(sessions, agent, secret)
    await surrendered(sessions, one.refresh_token)
    assert await sessions.opens(other.access_token)
    assert await refreshed(sessions, other)


async def test_any_token_can_be_surrendered(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions)
    minted = await sessions.minted(agent.id)
    for text in (pair.access_token, minted.token):
        assert await sessions.opens(text)
        first = await surrendered(sessions, text)
        assert not await sessions.opens(text)
        assert await surrendered(sessions, text) == first
    assert await refreshed(sessions, pair)


async def test_what_was_surrendered_while_it_was_refreshed_has_ended(sessions: Sessions) -> None:
    for _ in range(5):
        _, pair = await signed_in(sessions)

        async def attempt(pair: Pair = pair) -> Pair | None:
            try:
                return await refreshed(sessions, pair)
            except Unauthenticated:
                return None

        *answers, _ = await asyncio.gather(attempt(), surrendered(sessions, pair.refresh_token))
        for answer in filter(None, answers):
            assert not await sessions.opens(answer.access_token)
            assert await is_refused(refreshed(sessions, answer))


async def test_revoking_a_refresh_token_by_its_id_ends_all_that_came_of_it(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions)
    admin = sessions.caller(["admin"])
    listed = ListTokensRequest(agent_id=agent.id, kind=TokenKind.TOKEN_KIND_REFRESH)
    (token,) = (await admin.ListTokens(listed)).items
    await admin.RevokeToken(RevokeTokenRequest(agent_id=agent.id, token_id=token.id))
    assert not await sessions.opens(pair.access_token)
    assert await is_refused(refreshed(sessions, pair))


async def test_a_repeated_request_shows_nothing_again(sessions: Sessions) -> None:
    agent = await sessions.agent()
    admin = sessions.credentials(agent_id=new_id())
    request = CreateCredentialsRequest(agent_id=agent.id, request_id="key")
    secret = (await admin.CreateCredentials(request)).agent_secret
    pair = await obtained(sessions, agent, secret, request_id="key")
    await refreshed(sessions, pair, request_id="key")
    for attempt in (
        admin.CreateCredentials(request),
        obtained(sessions, agent, secret, request_id="key"),
        refreshed(sessions, pair, request_id="key"),
    ):
        with pytest.raises(Aborted) as refused:
            await attempt
        assert refused.value.reason == "ANSWER_NOT_REPEATABLE"
    first = await surrendered(sessions, pair.refresh_token, request_id="key")
    assert await surrendered(sessions, pair.refresh_token, request_id="key") == first


async def test_a_key_tells_nothing_to_those_who_prove_nothing(sessions: Sessions) -> None:
    agent = await sessions.agent()
    await obtained(sessions, agent, await secret_of(sessions, agent), request_id="key")
    with pytest.raises(Unauthenticated):
        await obtained(sessions, agent, "nope", request_id="key")


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (ObtainTokenRequest(agent_id="nobody", agent_secret="x"), "agent_id"),
        (ObtainTokenRequest(agent_id=new_id()), "agent_secret"),
        (ObtainTokenRequest(agent_id=new_id(), agent_secret="x" * 513), "agent_secret"),
        (RefreshTokenRequest(), "refresh_token"),
        (RefreshTokenRequest(refresh_token="x" * 513), "refresh_token"),
        (SurrenderTokenRequest(), "refresh_token"),
        (SurrenderTokenRequest(refresh_token="x" * 513), "refresh_token"),
        (SurrenderTokenRequest(refresh_token="x", request_id="k" * 256), "request_id"),
    ],
)
async def test_a_request_outside_the_contract_is_refused(sessions: Sessions, request_message: Any, field: str) -> None:
    method = type(request_message).__name__.removesuffix("Request")
    with pytest.raises(InvalidArgument) as refused:
        await getattr(sessions.anybody(), method)(request_message)
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_the_audit_is_told_who_obtained_what_for_whom(sessions: Sessions) -> None:
    agent = await sessions.agent()
    admin_id = new_id()
    request = CreateCredentialsRequest(agent_id=agent.id, request_id="key-1")
    secret = (await sessions.credentials(agent_id=admin_id).CreateCredentials(request)).agent_secret
    pair = await obtained(sessions, agent, secret, request_id="key-2")
    pair = await refreshed(sessions, pair, request_id="key-3")
    await surrendered(sessions, pair.refresh_token, request_id="key-4")
    told = (await sessions.audited())[1:]
    assert [(entry["action"], entry["actor"], entry["request_id"]) for entry in told] == [
        ("agent.create_credentials", admin_id, "key-1"),
        ("token.obtain", agent.id, "key-2"),
        ("token.refresh", agent.id, "key-3"),
        ("token.surrender", agent.id, "key-4"),
    ]
    assert {entry["resource"] for entry in told} == {f"agent/{agent.id}"}
    assert not any(text.split("_")[2] in repr(told) for text in (secret, pair.access_token, pair.refresh_token))


async def test_obtained_tokens_are_forgotten_a_day_after_their_end(sessions: Sessions) -> None:
    agent, pair = await signed_in(sessions)
    await sessions.minted(agent.id, expires_in_seconds=60)
    pruning = sessions.service.pruning
    sessions.clock.advance(days=1, hours=1)
    assert await pruning.step() == 600
    assert await sessions.count(tables.tokens) == 3
    sessions.clock.advance(microseconds=1)
    await pruning.step()
    kinds = select(tables.tokens.c.kind).order_by(tables.tokens.c.kind)
    left = await sessions.database.read(lambda connection, clock: list(connection.execute(kinds).scalars()))
    assert left == ["minted", "refresh"]
    assert await refreshed(sessions, pair)

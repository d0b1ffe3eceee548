"""Being told what happens as it happens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import psycopg
import pytest
from baton.api.v1.auth_service_pb2 import ExchangeTokenRequest
from baton.sessions.v1 import feed_service_pb2 as pb
from baton.sessions.v1.feed_service_pb2_grpc import FeedServiceStub
from joserfc.jwk import OKPKey

from services.chassis import loops, tail
from services.chassis.errors import InvalidArgument, Unauthenticated, Unavailable
from services.sessions.config import Settings
from services.sessions.service import SCHEMA, Service, build
from tests.integration.sessions.running import Sessions
from tests.integration.sessions.test_feed import logged, noted, orchestrator, said, text
from tests.support.clock import ManualClock
from tests.support.databases import context_url, postgres_copy
from tests.support.grpc import Signer, serve_in_process
from tests.support.postgres import Postgres
from tests.support.statements import counted_statements
from tests.support.waiting import await_until

PROMPTLY = 5.0


class Watch:
    """Somebody who watches."""

    def __init__(self, stub: FeedServiceStub, timeout: float | None = None, **fields: Any) -> None:
        self.call = stub.WatchFeed(pb.WatchFeedRequest(**fields), timeout=timeout)
        self._messages = aiter(self.call)

    async def message(self) -> pb.WatchFeedResponse:
        return await asyncio.wait_for(anext(self._messages), PROMPTLY)

    async def begun(self) -> pb.WatchFeedResponse:
        first = await self.message()
        assert not first.HasField("entry")
        return first

    async def texts(self, count: int) -> list[str]:
        return [text((await self.message()).entry) for _ in range(count)]

    async def end(self) -> None:
        """Waits until it is over. Raises what it fails with."""
        await asyncio.wait_for(self._end(), 10)

    async def _end(self) -> None:
        async for _ in self._messages:
            pass


async def holder_of(sessions: Sessions, token: str) -> FeedServiceStub:
    """Whoever holds a token, as the gateway calls for them."""
    answer = await sessions.auth().ExchangeToken(ExchangeTokenRequest(token=token))
    return FeedServiceStub(sessions.channel(answer.access_token))


async def reader(sessions: Sessions) -> FeedServiceStub:
    """An agent that may read logs, and nothing else."""
    agent = await sessions.agent("logs:read")
    return await holder_of(sessions, (await sessions.minted(agent.id)).token)


@pytest.fixture
def postgres_database(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """The superuser's URL of a database on PostgreSQL, where there are replicas."""
    with postgres_copy(postgres, postgres_template) as url:
        yield url


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks without a hint."""
    monkeypatch.setattr(tail, "POLL_SECONDS", 60.0)


async def test_what_happens_is_told_at_once(sessions: Sessions, seldom: None) -> None:
    await orchestrator(sessions)
    agent = await sessions.agent()
    await noted(sessions, "before")
    watch = Watch(await reader(sessions))
    assert (await watch.begun()).position == 1
    await logged(sessions, agent, "a", "b")
    assert await watch.texts(2) == ["a", "b"]
    await noted(sessions, "c")
    await said(sessions, "d")
    assert await watch.texts(2) == ["c", "d"]
    watch.call.cancel()


async def test_who_comes_back_misses_nothing_and_gets_nothing_twice(sessions: Sessions) -> None:
    agent = await sessions.agent()
    watch = Watch(await reader(sessions), after=0)
    await watch.begun()
    await logged(sessions, agent, "a", "b", "c")
    last = [await watch.message() for _ in range(2)][-1]
    assert last.position == last.entry.position
    watch.call.cancel()
    await logged(sessions, agent, "d")
    back = Watch(await reader(sessions), after=last.position)
    assert (await back.begun()).position == last.position
    assert await back.texts(2) == ["c", "d"]
    back.call.cancel()


async def test_writers_at_once_are_told_in_the_order_of_their_places(sessions: Sessions) -> None:
    agents = [await sessions.agent() for _ in range(4)]
    watch = Watch(await reader(sessions), after=0)
    await watch.begun()
    await asyncio.gather(*(logged(sessions, agents[n % 4], *"abc") for n in range(40)))
    assert [(await watch.message()).position for _ in range(120)] == list(range(1, 121))
    watch.call.cancel()


async def test_a_filter_lets_through_its_own_and_goes_on_over_the_rest(sessions: Sessions) -> None:
    one, other = await sessions.agent(), await sessions.agent()
    by_agent = Watch(await reader(sessions), agent_id=one.id.upper())
    by_source = Watch(await reader(sessions), source_type=["FEED_SOURCE_SYSTEM_LOG"])
    by_slug = Watch(await reader(sessions), task_slug="fix-it")
    for watch in (by_agent, by_source, by_slug):
        await watch.begun()
    await logged(sessions, other, *"x" * 120)
    await logged(sessions, one, "mine", task_slug="fix-it")
    await noted(sessions, "note", one.id)
    assert await by_agent.texts(2) == ["mine", "note"]
    assert await by_source.texts(1) == ["note"]
    assert await by_slug.texts(1) == ["mine"]
    for watch in (by_agent, by_source, by_slug):
        watch.call.cancel()


async def test_the_tables_are_asked_once_for_all_who_watch(sessions: Sessions, seldom: None) -> None:
    agent, stub = await sessions.agent(), await reader(sessions)
    await orchestrator(sessions)
    watches = [Watch(stub) for _ in range(60)]
    filtered = [Watch(stub, agent_id=agent.id), Watch(stub, source_type=["FEED_SOURCE_ORCHESTRATOR_CHAT"])]
    for watch in (*watches, *filtered):
        await watch.begun()
    await logged(sessions, agent, "first")
    for watch in (*watches, filtered[0]):
        assert await watch.texts(1) == ["first"]
    with counted_statements() as statements:
        await logged(sessions, agent, "a", "b")
        await said(sessions, "c")
        for watch in watches:
            assert await watch.texts(3) == ["a", "b", "c"]
    assert await filtered[0].texts(2) == ["a", "b"]
    assert await filtered[1].texts(1) == ["c"]
    assert len(statements) < len(watches)
    for watch in (*watches, *filtered):
        watch.call.cancel()


async def test_who_is_slow_or_far_behind_is_told_everything_all_the_same(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "FAR", 100)
    agent, other = await sessions.agent(), await sessions.agent()
    stub = await reader(sessions)
    # More than fits between the two, so that the one who tells has to wait.
    slow, rare = Watch(stub), Watch(stub, agent_id=other.id)
    await slow.begun()
    await rare.begun()
    texts = [f"{number} {'x' * 10_000}" for number in range(600)]
    for start in range(0, 600, 50):
        await logged(sessions, agent, *texts[start : start + 50])
    await logged(sessions, other, "rare")
    assert await rare.texts(1) == ["rare"]
    assert await slow.texts(601) == [*texts, "rare"]
    for watch in (slow, rare):
        watch.call.cancel()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"after": 7}, "after"),
        ({"after": -1}, "after"),
        ({"agent_id": "7"}, "agent_id"),
        ({"source_type": [9]}, "source_type[0]"),
    ],
)
async def test_a_watch_of_what_is_not_there_is_refused(sessions: Sessions, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await Watch(await reader(sessions), **fields).begun()
    assert [violation.field for violation in refused.value.violations] == [field]


async def test_it_ends_before_the_caller_s_time_does(sessions: Sessions) -> None:
    watch = Watch(await reader(sessions), timeout=1.5)
    await watch.begun()
    # Without an error: there is nothing wrong.
    await watch.end()


async def test_it_ends_when_the_service_stops(sessions: Sessions, seldom: None) -> None:
    watch = Watch(await reader(sessions))
    await watch.begun()
    sessions.service.stop_waiting()
    await watch.end()


async def test_there_are_so_many_watchers_and_no_more(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_WATCHERS", 2)
    stub = await reader(sessions)
    first, second = Watch(stub), Watch(stub)
    await first.begun()
    await second.begun()
    with pytest.raises(Unavailable) as refused:
        await Watch(stub).begun()
    assert (refused.value.reason, refused.value.retry_after) == ("TOO_MANY_WATCHERS", 5)
    first.call.cancel()

    async def there_is_room() -> bool:
        with suppress(Unavailable):
            await Watch(stub).begun()
            return True
        return False

    await await_until(there_is_room)
    second.call.cancel()


async def test_it_ends_with_the_access_token_that_it_was_called_with(sessions: Sessions, seldom: None) -> None:
    stub = await reader(sessions)
    # An access token lives for a minute.
    sessions.clock.advance(seconds=59)
    watch = Watch(stub)
    await watch.begun()
    await watch.end()
    sessions.clock.advance(seconds=1)
    with pytest.raises(Unauthenticated):
        await Watch(stub).begun()


@asynccontextmanager
async def replica(settings: Settings, clock: ManualClock) -> AsyncIterator[tuple[Service, str]]:
    """A service that hears and tells, and its address."""
    service = build(settings, clock)
    assert service.listener is not None
    listening = asyncio.create_task(loops.forever("listener", service.listener.step, timeout=60))
    try:
        async with serve_in_process(service.server) as address:
            yield service, address
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        service.database.close()


async def test_what_happens_at_one_replica_is_told_at_the_other(
    postgres_database: str, settings_of: Callable[[str], Settings], clock: ManualClock, seldom: None
) -> None:
    settings = settings_of(context_url(postgres_database, SCHEMA))
    async with replica(settings, clock) as (here, address), replica(settings, clock) as (_, elsewhere):
        signer = Signer(OKPKey.import_key(orjson.loads(settings.signing_key_file.read_bytes())))
        at_one = Sessions(settings, here, address, clock, signer)
        at_other = Sessions(settings, here, elsewhere, clock, signer)
        await await_until(lambda: len(listening(postgres_database)) == 2)
        watch = Watch(await reader(at_other))
        await watch.begun()
        for message in "abc":
            await noted(at_one, message)
            assert await watch.texts(1) == [message]
        watch.call.cancel()
        for channel in (*at_one.channels, *at_other.channels):
            await channel.close()


def listening(database_url: str) -> list[int]:
    """The processes of the server that have told it what they listen to."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'baton-sessions-listener' AND query <> '' "
        "AND datname = current_database()"
    )
    with psycopg.connect(database_url) as connection:
        return [pid for (pid,) in connection.execute(query)]

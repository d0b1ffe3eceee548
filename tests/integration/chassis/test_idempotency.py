"""A repeated request has one effect and one answer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select

from services.chassis import call
from services.chassis.call import Call, Caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, ServiceError
from services.chassis.idempotency import Idempotency
from tests.integration.chassis import notes
from tests.integration.chassis.conftest import OpenDatabase
from tests.integration.chassis.newsstand import BUY, messages
from tests.support.clock import ManualClock

TTL_SECONDS = 3600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@contextmanager
def _serving(method: str = BUY, agent_id: str = "ada") -> Iterator[Call]:
    """A call of somebody's to a method, in progress."""
    serving = Call(method, caller=Caller(agent_id))
    token = call.current.set(serving)
    try:
        yield serving
    finally:
        call.current.reset(token)


@dataclass
class Till:
    """Sells under idempotency; each sale is a row."""

    database: Database
    idempotency: Idempotency
    before_answering: Callable[[], None] = field(default=lambda: None)

    async def buy(self, key: str = "k1", title: str = "Sunday", *, secret: bool = False) -> str:
        def sell(connection: Connection, clock: Clock) -> Any:
            number = connection.execute(select(func.count()).select_from(notes.table)).scalar_one()
            notes.write(connection, number, title)
            self.before_answering()
            return messages.BuyResponse(receipt=f"receipt {number}")

        request = messages.BuyRequest(request_id=key, title=title)
        response = await self.idempotency.once(request, messages.BuyResponse, sell, answer_is_secret=secret)
        return str(response.receipt)

    async def sold(self) -> list[str]:
        return list((await self.database.read(notes.read)).values())

    async def remembered(self) -> int:
        count = select(func.count()).select_from(notes.idempotency_keys)
        number: int = await self.database.read(lambda connection, clock: connection.execute(count).scalar_one())
        return number


@pytest.fixture
def till(database: Database, open_database: OpenDatabase, clock: ManualClock) -> Till:
    timed = open_database(clock=clock)
    return Till(timed, Idempotency(timed, notes.idempotency_keys, TTL_SECONDS, notes.outbox))


async def _refusal(awaitable: Any) -> ServiceError:
    with pytest.raises(ServiceError) as refusal:
        await awaitable
    return refusal.value


async def test_a_repeated_request_has_the_same_answer_and_no_second_effect(till: Till) -> None:
    with _serving() as first:
        assert await till.buy() == "receipt 0"
    with _serving() as second:
        assert await till.buy() == "receipt 0"
    assert (first.replayed, second.replayed) == (False, True)
    assert await till.sold() == ["Sunday"]


async def test_without_a_key_every_request_counts(till: Till) -> None:
    with _serving() as serving:
        assert await till.buy(key="") == "receipt 0"
        assert await till.buy(key="") == "receipt 1"
        assert not serving.replayed
    assert await till.remembered() == 0


async def test_other_keys_are_other_requests(till: Till) -> None:
    with _serving():
        assert await till.buy("k1") == "receipt 0"
        assert await till.buy("k2") == "receipt 1"


async def test_a_key_belongs_to_its_caller_and_its_method(till: Till) -> None:
    with _serving(agent_id="ada"):
        assert await till.buy() == "receipt 0"
    with _serving(agent_id="bob"):
        assert await till.buy(title="Monday") == "receipt 1"
    with _serving(method="/kiosk.v1.KioskService/Return"):
        assert await till.buy(title="Tuesday") == "receipt 2"


async def test_a_key_is_good_for_one_request_only(till: Till) -> None:
    with _serving():
        await till.buy(title="Sunday")
        refusal = await _refusal(till.buy(title="Monday"))
    assert isinstance(refusal, InvalidArgument)
    assert refusal.reason == "IDEMPOTENCY_KEY_REUSED"
    assert [violation.field for violation in refusal.violations] == ["request_id"]
    assert await till.sold() == ["Sunday"]


async def test_an_answer_is_kept_for_its_time(till: Till, clock: ManualClock) -> None:
    with _serving() as serving:
        await till.buy()
        clock.advance(seconds=TTL_SECONDS - 1)
        assert await till.buy() == "receipt 0"
        clock.advance(seconds=1)
        assert await till.buy(title="Monday") == "receipt 1"
        assert not serving.replayed
        assert await till.buy(title="Monday") == "receipt 1"
        assert serving.replayed
    assert await till.sold() == ["Sunday", "Monday"]


async def test_a_secret_answer_is_given_once_and_stored_nowhere(till: Till) -> None:
    with _serving():
        assert await till.buy(secret=True) == "receipt 0"
        refusal = await _refusal(till.buy(secret=True))
        assert isinstance(refusal, Aborted)
        assert refusal.reason == "ANSWER_NOT_REPEATABLE"
        assert isinstance(await _refusal(till.buy(title="Monday", secret=True)), InvalidArgument)
    stored = select(notes.idempotency_keys.c.response)
    assert await till.database.read(lambda connection, clock: connection.execute(stored).scalars().all()) == [b""]
    assert await till.sold() == ["Sunday"]


@pytest.mark.parametrize("failure", [NotFound("sold out"), KeyError("4711")])
async def test_a_failed_effect_leaves_nothing_and_may_be_repeated(till: Till, failure: Exception) -> None:
    def fail() -> None:
        raise failure

    with _serving() as serving:
        till.before_answering = fail
        with pytest.raises(type(failure)):
            await till.buy()
        assert await till.remembered() == 0
        assert await till.sold() == []
        till.before_answering = lambda: None
        assert await till.buy() == "receipt 0"
        assert not serving.replayed


async def test_an_empty_answer_is_an_answer(till: Till) -> None:
    def give(connection: Connection, clock: Clock) -> Any:
        return messages.BuyResponse()

    with _serving() as serving:
        for replayed in (False, True):
            request = messages.BuyRequest(request_id="k1", title="Sunday")
            assert await till.idempotency.once(request, messages.BuyResponse, give) == messages.BuyResponse()
            assert serving.replayed is replayed


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_while_the_first_is_in_progress_the_second_is_told_to_come_back(till: Till) -> None:
    answering, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        answering.set()
        go_on.wait(5)

    till.before_answering = wait
    with _serving():
        first = asyncio.create_task(till.buy())
        assert await asyncio.to_thread(answering.wait, 5)
        till.before_answering = lambda: None
        refusal = await _refusal(till.buy())
        assert isinstance(refusal, Aborted)
        assert (refusal.reason, refusal.retry_after) == ("IDEMPOTENCY_KEY_IN_FLIGHT", 1)
        go_on.set()
        assert await first == await till.buy() == "receipt 0"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_where_there_is_one_writer_the_second_waits_and_is_answered_alike(till: Till) -> None:
    with _serving():
        assert set(await asyncio.gather(*(till.buy() for _ in range(5)))) == {"receipt 0"}
    assert await till.sold() == ["Sunday"]


async def test_of_many_at_once_one_has_the_effect(till: Till) -> None:
    with _serving():
        answers = await asyncio.gather(*(till.buy() for _ in range(8)), return_exceptions=True)
    assert await till.sold() == ["Sunday"]
    assert "receipt 0" in answers
    assert all(answer == "receipt 0" or isinstance(answer, Aborted) for answer in answers)


async def test_old_answers_are_forgotten_a_thousand_at_a_time(till: Till, clock: ManualClock) -> None:
    old, new = clock.now(), TTL_SECONDS + 1

    def fill(connection: Connection, clock: Clock) -> None:
        rows = [
            {"caller": "ada", "method": BUY, "key": str(number), "fingerprint": b"", "response": b"", "created_at": old}
            for number in range(1500)
        ]
        connection.execute(insert(notes.idempotency_keys), rows)

    await till.database.transact(fill)
    clock.advance(seconds=new)
    with _serving():
        await till.buy("fresh")
    assert await till.idempotency.forget_expired() < 1  # more to do
    assert await till.remembered() == 501
    assert await till.idempotency.forget_expired() > 60
    assert await till.remembered() == 1
    with _serving() as serving:
        assert await till.buy("fresh") == "receipt 0"
        assert serving.replayed


async def test_a_caller_is_needed(till: Till) -> None:
    with _serving() as serving:
        serving.caller = None
        with pytest.raises(ServiceError) as failure:
            await till.buy()
    assert not isinstance(failure.value, FailedPrecondition)
    assert await till.sold() == []

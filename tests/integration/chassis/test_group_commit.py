"""Calls that come together share a transaction, and nothing else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from services.chassis import call
from services.chassis.call import Call, Caller
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import Aborted, InvalidArgument, NotFound, ServiceError, Unavailable
from services.chassis.group_commit import GroupCommit
from services.chassis.idempotency import GroupedOnce, Idempotency
from tests.integration.chassis import notes
from tests.integration.chassis.newsstand import BUY, messages


@dataclass
class Counter:
    """Sells titles; those that are sold together are one transaction. `nothing` is never there, `bad` breaks all."""

    database: Database
    groups: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        idempotency = Idempotency(self.database, notes.idempotency_keys, 3600, notes.outbox)
        self._sales: GroupedOnce[str, Any] = idempotency.grouped(messages.BuyResponse, self._sell)

    async def buy(self, title: str, key: str = "", agent_id: str = "ada") -> tuple[str, bool]:
        """The receipt, and whether it was given before."""
        serving = Call(BUY, caller=Caller(agent_id))
        call.current.set(serving)  # each task of a gather has a context of its own
        response = await self._sales.once(messages.BuyRequest(request_id=key, title=title), title)
        return response.receipt, serving.replayed

    async def sold(self) -> list[str]:
        return list((await self.database.read(notes.read)).values())

    def _sell(self, connection: Connection, clock: Clock, titles: Sequence[str]) -> list[Any]:
        self.groups.append(list(titles))
        number = connection.execute(select(func.count()).select_from(notes.table)).scalar_one()
        responses: list[Any] = []
        for title in titles:
            if title == "bad":
                raise KeyError(title)
            if title == "nothing":
                responses.append(NotFound("sold out"))
                continue
            notes.write(connection, number, title)
            responses.append(messages.BuyResponse(receipt=f"receipt {number}"))
            number += 1
        return responses


@pytest.fixture
def counter(database: Database) -> Counter:
    return Counter(database)


async def test_one_alone_is_written_at_once_and_those_behind_it_together(counter: Counter) -> None:
    answers = await asyncio.gather(*(counter.buy(str(number)) for number in range(50)))
    assert [receipt for receipt, _ in answers] == [f"receipt {number}" for number in range(50)]
    assert [len(group) for group in counter.groups] == [1, 49] or len(counter.groups[0]) == 50
    assert len(await counter.sold()) == 50


async def test_an_error_is_its_callers_alone(counter: Counter) -> None:
    answers = await asyncio.gather(
        counter.buy("a"), counter.buy("nothing"), counter.buy("b"), counter.buy("bad"), counter.buy("c"),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(answers[1], NotFound)
    assert isinstance(answers[3], KeyError)
    assert sorted(await counter.sold()) == ["a", "b", "c"]


async def test_a_key_has_one_effect_within_a_group_and_across_groups(counter: Counter) -> None:
    answers = await asyncio.gather(*(counter.buy("Sunday", key="k") for _ in range(10)), return_exceptions=True)
    assert await counter.sold() == ["Sunday"]
    receipts = [answer[0] for answer in answers if not isinstance(answer, BaseException)]
    assert receipts
    assert set(receipts) == {"receipt 0"}
    refusals = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(refusal, Aborted) for refusal in refusals)
    assert await counter.buy("Sunday", key="k") == ("receipt 0", True)


async def test_keys_are_judged_one_by_one(counter: Counter) -> None:
    await counter.buy("Sunday", key="k1")
    replayed, other_body, new, other_caller = await asyncio.gather(
        counter.buy("Sunday", key="k1"),
        counter.buy("Monday", key="k1"),
        counter.buy("Monday", key="k2"),
        counter.buy("Sunday", key="k1", agent_id="bob"),
        return_exceptions=True,
    )
    assert replayed == ("receipt 0", True)
    assert isinstance(other_body, InvalidArgument)
    assert other_body.reason == "IDEMPOTENCY_KEY_REUSED"
    assert not isinstance(new, BaseException)
    assert not isinstance(other_caller, BaseException)
    assert not new[1]
    assert not other_caller[1]
    assert sorted(await counter.sold()) == ["Monday", "Sunday", "Sunday"]


async def test_a_refused_one_keeps_no_answer_and_may_be_repeated(counter: Counter) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            await counter.buy("nothing", key="k")
    assert len(counter.groups) == 2


async def test_who_leaves_before_the_group_begins_takes_his_item_back() -> None:
    written: list[int] = []
    go_on = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int | Exception]:
        written.extend(items)
        await go_on.wait()
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(write, at_most=10)
    adding = [asyncio.create_task(group.add(number)) for number in range(3)]
    await asyncio.wait(adding, timeout=0.05)
    adding.append(asyncio.create_task(group.add(3)))
    adding.append(asyncio.create_task(group.add(4)))
    await asyncio.wait(adding, timeout=0.05)
    adding[3].cancel()
    go_on.set()
    assert await asyncio.gather(*adding, return_exceptions=True) != []
    assert adding[3].cancelled()
    assert written == [0, 1, 2, 4]


async def test_a_group_is_no_larger_than_it_may_be() -> None:
    sizes: list[int] = []

    async def write(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(write, at_most=10)
    assert await asyncio.gather(*(group.add(number) for number in range(35))) == list(range(35))
    assert max(sizes) == 10


async def test_the_deadline_of_the_first_is_not_that_of_the_others(counter: Counter) -> None:
    async def hurried() -> Any:
        call.current.set(Call(BUY, caller=Caller("ada"), expires_at=0.0))
        return await counter._sales.once(messages.BuyRequest(title="late"), "late")

    late, punctual = await asyncio.gather(hurried(), counter.buy("b"), return_exceptions=True)
    assert not isinstance(punctual, BaseException), punctual
    assert not isinstance(late, ServiceError)


async def test_what_says_nothing_of_one_item_is_everybodys_and_nothing_is_written_again() -> None:
    """A commit may have happened although its answer never came."""
    written: list[int] = []

    async def write(items: Sequence[int]) -> list[int | Exception]:
        written.extend(items)
        raise Unavailable("the connection broke", reason="DATABASE_UNAVAILABLE")

    group: GroupCommit[int, int] = GroupCommit(write)
    outcomes = await asyncio.gather(*(group.add(number) for number in range(5)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert sorted(written) == [0, 1, 2, 3, 4]


async def test_who_has_left_is_not_written_one_by_one() -> None:
    written: list[list[int]] = []
    go_on = asyncio.Event()

    async def write(items: Sequence[int]) -> list[int | Exception]:
        written.append(list(items))
        if len(items) > 1:
            await go_on.wait()
            raise KeyError("bad company")
        return list(items)

    group: GroupCommit[int, int] = GroupCommit(write)
    adding = [asyncio.create_task(group.add(number)) for number in range(3)]
    await asyncio.wait(adding, timeout=0.05)
    adding[1].cancel()
    go_on.set()
    assert await asyncio.gather(adding[0], adding[2]) == [0, 2]
    assert [1] not in written

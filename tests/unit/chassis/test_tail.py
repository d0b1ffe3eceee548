"""Looking at the end of something for all who watch it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.chassis import tail
from services.chassis.errors import Unavailable
from services.chassis.tail import Look, Tail
from services.chassis.wakeup import Wakeup
from tests.support.waiting import await_until


@dataclass
class Numbers:
    """The numbers from 1 on, as many as there are so far; and how often anybody has asked for them."""

    end: int = 0
    at_once: int = 3
    asked_end: int = 0
    asked: list[int] = field(default_factory=list)
    is_away: bool = False
    wakeup: Wakeup = field(default_factory=Wakeup)

    def __post_init__(self) -> None:
        self.tail: Tail[int] = Tail(self.find_end, self.look, self.wakeup, metric="baton.numbers.watchers")

    async def find_end(self) -> int:
        self.asked_end += 1
        await self._answer()
        return self.end

    async def look(self, position: int) -> Look[int]:
        self.asked.append(position)
        await self._answer()
        reached = min(position + self.at_once, self.end)
        return Look(list(range(position + 1, reached + 1)), reached, reached < self.end)

    def grow(self, count: int) -> None:
        self.end += count
        self.wakeup.notify()

    def watch(self, position: int = 0) -> AsyncIterator[int]:
        return self.tail.told(position, self.look, lambda number: True)

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("away")


async def taken(watch: AsyncIterator[int], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [await anext(watch) for _ in range(count)]


async def test_many_are_told_at_the_price_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "POLL_SECONDS", 60.0)
    numbers = Numbers()
    with numbers.tail.watched():
        watches = [numbers.watch() for _ in range(100)]
        waiting = [asyncio.create_task(taken(watch, 7)) for watch in watches]
        # Each looks by itself where it begins.
        await await_until(lambda: len(numbers.asked) == 100)
        numbers.asked.clear()
        numbers.grow(7)
        assert await asyncio.gather(*waiting) == [list(range(1, 8))] * 100
    assert numbers.asked == [0, 3, 6]
    assert numbers.asked_end <= 3


async def test_a_hint_that_is_lost_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "POLL_SECONDS", 0.05)
    numbers = Numbers()
    with numbers.tail.watched():
        watch = numbers.watch()
        waiting = asyncio.create_task(taken(watch, 1))
        await await_until(lambda: numbers.asked)
        numbers.end += 1
        assert await waiting == [1]


async def test_nobody_asks_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "POLL_SECONDS", 0.01)
    numbers = Numbers()
    with numbers.tail.watched(), numbers.tail.watched():
        await await_until(lambda: numbers.asked_end > 3)
    await asyncio.sleep(0)
    asked = numbers.asked_end
    numbers.grow(1)
    with pytest.raises(TimeoutError):
        await await_until(lambda: numbers.asked_end > asked, timeout=0.2)
    with numbers.tail.watched():
        assert await taken(numbers.watch(), 1) == [1]


async def test_who_waits_goes_on_waiting_while_the_end_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "POLL_SECONDS", 0.01)
    numbers = Numbers()
    with numbers.tail.watched():
        waiting = asyncio.create_task(taken(numbers.watch(), 1))
        await await_until(lambda: numbers.asked)
        numbers.is_away, asked = True, numbers.asked_end
        await await_until(lambda: numbers.asked_end > asked + 3)
        numbers.is_away = False
        numbers.grow(1)
        assert await waiting == [1]


async def test_a_look_that_fails_fails_those_who_wait_for_it_and_nobody_after() -> None:
    numbers = Numbers()
    with numbers.tail.watched():
        watch = numbers.watch()
        waiting = asyncio.create_task(taken(watch, 1))
        await await_until(lambda: numbers.asked)
        numbers.grow(1)
        assert await waiting == [1]
        numbers.grow(1)
        await await_until(lambda: numbers.tail._end == 2)
        numbers.is_away = True
        with pytest.raises(Unavailable):
            await taken(watch, 1)
        numbers.is_away = False
        assert await taken(numbers.watch(1), 1) == [2]


async def test_who_is_far_behind_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "FAR", 10)
    numbers = Numbers()
    own: list[int] = []

    async def own_look(position: int) -> Look[int]:
        own.append(position)
        return Look([number for number in range(position + 1, numbers.end + 1) if number % 50 == 0], numbers.end, False)

    with numbers.tail.watched():
        watch = numbers.tail.told(0, own_look, lambda number: number % 50 == 0)
        waiting = asyncio.create_task(taken(watch, 2))
        await await_until(lambda: own)
        numbers.grow(100)
        assert await waiting == [50, 100]
    assert (len(own), len(numbers.asked)) == (2, 1)


async def test_there_are_so_many_watchers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_WATCHERS", 1)
    numbers = Numbers()
    with numbers.tail.watched(), pytest.raises(Unavailable), numbers.tail.watched():
        raise AssertionError("one too many")
    with numbers.tail.watched():
        numbers.tail.stop()
        with pytest.raises(StopAsyncIteration):
            await anext(numbers.watch())

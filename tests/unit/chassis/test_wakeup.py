"""Hints that there may be work."""

import asyncio
import gc

from services.chassis.wakeup import Wakeup
from tests.support.waiting import await_until

LONG = 30.0


async def test_a_hint_between_the_look_and_the_wait_is_not_lost() -> None:
    wakeup = Wakeup()
    ticket = wakeup.ticket()
    wakeup.notify()
    await asyncio.wait_for(wakeup.wait(ticket, LONG), timeout=1)


async def test_a_hint_wakes_everybody_who_waits() -> None:
    wakeup = Wakeup()
    waiting = [asyncio.create_task(wakeup.wait(wakeup.ticket(), LONG)) for _ in range(5)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    wakeup.notify()
    await asyncio.wait_for(asyncio.gather(*waiting), timeout=1)


async def test_a_hint_of_before_the_ticket_does_not_count() -> None:
    wakeup = Wakeup()
    wakeup.notify()
    waiting = asyncio.create_task(wakeup.wait(wakeup.ticket(), LONG))
    done, _ = await asyncio.wait([waiting], timeout=0.02)
    assert not done
    wakeup.notify()
    await await_until(waiting.done)


async def test_without_a_hint_the_wait_ends_in_time() -> None:
    wakeup = Wakeup()
    await asyncio.wait_for(wakeup.wait(wakeup.ticket(), 0.01), timeout=1)


async def test_of_many_hints_none_is_lost() -> None:
    """A worker that looks, and waits for the next hint when there is nothing, misses nothing that is put there."""
    wakeup = Wakeup()
    queue: list[int] = []
    taken: list[int] = []

    async def worker() -> None:
        while len(taken) < 300:
            ticket = wakeup.ticket()
            await asyncio.sleep(0)  # what looking takes
            found, queue[:] = queue[:], []
            taken.extend(found)
            if not found and len(taken) < 300:
                await wakeup.wait(ticket, LONG)

    async def producer() -> None:
        for number in range(300):
            queue.append(number)
            wakeup.notify()
            for _ in range(number % 4):
                await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(worker(), producer())
    assert taken == list(range(300))


async def test_a_hint_for_a_role_wakes_nobody_else() -> None:
    wakeup = Wakeup()
    review, build = [asyncio.create_task(wakeup.wait(wakeup.ticket(role), LONG)) for role in ("review", "build")]
    await asyncio.sleep(0)
    wakeup.notify("review")
    await asyncio.wait_for(review, timeout=1)
    assert not build.done()
    wakeup.notify()
    await asyncio.wait_for(build, timeout=1)


async def test_a_hint_is_passed_on_and_one_from_elsewhere_is_not() -> None:
    told: list[frozenset[str] | None] = []
    wakeup = Wakeup(told.append)
    wakeup.notify("review", "build")
    wakeup.notify()
    wakeup.wake("review")
    assert told == [{"review", "build"}, None]


async def test_roles_that_nobody_waits_for_take_no_memory() -> None:
    wakeup = Wakeup()
    for number in range(1000):
        await wakeup.wait(wakeup.ticket(f"role {number}"), 0)
    gc.collect()
    # The last one may not be gone yet.
    assert len(wakeup._next) <= 1

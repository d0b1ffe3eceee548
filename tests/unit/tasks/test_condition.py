"""When a condition fires, by what was told before."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tasks.models.condition import Condition

NOON = datetime(2026, 5, 12, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def condition(cooldown: timedelta) -> Condition:
    return Condition("echo.test", {}, 30.0, MINUTE, cooldown)


def firings(told: list[bool | None], cooldown: int) -> list[int]:
    """At which of the evaluations, one a minute, a condition fires; None is one that told nothing."""
    before: bool | None = None
    last: datetime | None = None
    fired = []
    for number, holds in enumerate(told):
        now = NOON + number * MINUTE
        if holds is None:
            continue
        if condition(cooldown * MINUTE).fires(holds=holds, before=before, last_fired_at=last, now=now):
            fired.append(number)
            last = now
        before = holds
    return fired


@pytest.mark.parametrize(
    ("told", "cooldown", "fired"),
    [
        ([True], 0, [0]),
        ([False, True, True, False, True], 0, [1, 4]),
        ([True, None, True], 0, [0]),
        ([None, True], 0, [1]),
        ([False, None, True], 0, [2]),
        ([True, True, True, True, True], 2, [0, 2, 4]),
        ([True, False, True, True, True], 2, [0, 2, 4]),
        ([True, None, None, True], 2, [0, 3]),
        ([False, False], 2, []),
    ],
)
def test_when_it_fires(told: list[bool | None], cooldown: int, fired: list[int]) -> None:
    assert firings(told, cooldown) == fired


telling = st.lists(st.sampled_from([True, False, None]), max_size=60)


@given(telling)
def test_without_a_cooldown_it_fires_once_for_each_time_that_it_becomes_true(told: list[bool | None]) -> None:
    known = [(number, holds) for number, holds in enumerate(told) if holds is not None]
    edges = [number for index, (number, holds) in enumerate(known) if holds and (index == 0 or not known[index - 1][1])]
    assert firings(told, 0) == edges


@given(telling, st.integers(1, 10))
def test_a_cooldown_only_adds_firings_and_keeps_them_apart_while_it_is_true(
    told: list[bool | None], cooldown: int
) -> None:
    fired = firings(told, cooldown)
    assert set(firings(told, 0)) <= set(fired)
    assert all(told[number] for number in fired)
    for earlier, later in pairwise(fired):
        assert later - earlier >= cooldown or False in told[earlier:later]


@given(telling, st.integers(1, 10))
def test_no_stretch_of_truth_that_is_longer_than_the_cooldown_passes_without_a_firing(
    told: list[bool | None], cooldown: int
) -> None:
    fired = firings(told, cooldown)
    for start in range(len(told) - cooldown):
        stretch = told[start : start + cooldown + 1]
        if all(stretch):
            assert any(start <= number <= start + cooldown for number in fired)


def test_what_is_stored_is_read_again() -> None:
    assert Condition.stored("a.b", {"c": 1}, None, 30, 0) == {
        "probe": {"uses": "a.b", "with": {"c": 1}}, "every_seconds": 30, "cooldown_seconds": 0,
    }  # fmt: skip
    assert condition(MINUTE).lease == timedelta(seconds=90)

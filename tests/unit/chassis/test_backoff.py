"""How long failed runs wait."""

from datetime import timedelta

import pytest

from services.chassis.backoff import BackoffStrategy, backoff

EXPONENTIAL, LINEAR, FIXED = (
    BackoffStrategy.EXPONENTIAL_JITTER,
    BackoffStrategy.LINEAR,
    BackoffStrategy.FIXED,
)


@pytest.mark.parametrize(
    ("strategy", "waits"),
    [
        (FIXED, [1, 1, 1, 1]),
        (LINEAR, [1, 2, 3, 4]),
        (EXPONENTIAL, [1, 2, 4, 8]),
    ],
)
def test_a_strategy_says_how_waits_grow(strategy: BackoffStrategy, waits: list[int]) -> None:
    found = [backoff(strategy, retry, jitter=lambda: 1.0) for retry in range(1, 5)]
    assert found == [timedelta(seconds=wait) for wait in waits]


def test_the_jitter_spreads_an_exponential_wait_from_nothing_on() -> None:
    assert backoff(EXPONENTIAL, 3, jitter=lambda: 0.0) == timedelta()
    assert backoff(EXPONENTIAL, 3, jitter=lambda: 0.25) == timedelta(seconds=1)
    assert len({backoff(EXPONENTIAL, 10) for _ in range(20)}) > 10


@pytest.mark.parametrize(("strategy", "retry"), [(EXPONENTIAL, 10), (LINEAR, 301), (EXPONENTIAL, 1000)])
def test_no_wait_is_longer_than_five_minutes(strategy: BackoffStrategy, retry: int) -> None:
    assert backoff(strategy, retry, jitter=lambda: 1.0) == timedelta(minutes=5)


def test_a_tool_that_asks_for_more_time_gets_it_up_to_an_hour() -> None:
    for asked, granted in [(0, 1), (0.5, 1), (90, 90), (3600, 3600), (9000, 3600), (-5, 1)]:
        assert backoff(FIXED, 1, timedelta(seconds=asked)) == timedelta(seconds=granted)

"""How long something that failed waits for its next attempt."""

import random
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

BASE_SECONDS = 1.0
MAX_SECONDS = 300.0
MAX_RETRY_AFTER = timedelta(hours=1)


class BackoffStrategy(StrEnum):
    """How waits grow from one retry to the next."""

    EXPONENTIAL_JITTER = "exponential_jitter"
    LINEAR = "linear"
    FIXED = "fixed"


def backoff(
    strategy: BackoffStrategy,
    retry: int,
    retry_after: timedelta = timedelta(),
    jitter: Callable[[], float] = random.random,
) -> timedelta:
    """The wait before the `retry`-th retry, counted from 1.

    `fixed` is a second, `linear` a second per retry, `exponential_jitter` evenly spread between nothing and
    2^(retry - 1) seconds; at most five minutes. It is never less than `retry_after`, what the tool itself asked for,
    of which an hour is granted at most. `jitter` answers a number between 0 and 1.
    """
    match strategy:
        case BackoffStrategy.FIXED:
            seconds = BASE_SECONDS
        case BackoffStrategy.LINEAR:
            seconds = min(BASE_SECONDS * retry, MAX_SECONDS)
        case BackoffStrategy.EXPONENTIAL_JITTER:
            seconds = min(BASE_SECONDS * 2.0 ** min(retry - 1, 30), MAX_SECONDS) * jitter()
    return max(timedelta(seconds=seconds), min(retry_after, MAX_RETRY_AFTER))

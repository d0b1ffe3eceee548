"""What migrations have done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Applied:
    """What was done for one context: revisions before (None: no tables) and after, steps between, time taken."""

    context: str
    before: str | None
    after: str | None
    steps: int
    seconds: float

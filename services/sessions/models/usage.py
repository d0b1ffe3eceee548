"""What agents have used."""

from dataclasses import astuple, dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What was used; of several things each is added up."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_microusd: int = 0
    tool_calls: int = 0
    wall_time_ms: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(**{name: mine + getattr(other, name) for name, mine in zip(AMOUNTS, astuple(self), strict=True)})


AMOUNTS = tuple(Amounts.__dataclass_fields__)
"""The names of all that is added up."""


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """What somebody tells of one call."""

    agent_id: str
    session_id: str | None = None
    run_id: str | None = None
    model: str = ""
    amounts: Amounts
    occurred_at: datetime | None = None
    """None for now."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, as it is kept."""

    id: str
    agent_id: str
    session_id: str | None
    run_id: str | None
    model: str
    amounts: Amounts
    occurred_at: datetime
    recorded_by: str


@dataclass(frozen=True)
class CallFilter:
    """Which calls are wanted; what is empty lets all through."""

    agent_id: str = ""
    session_id: str = ""
    run_id: str = ""
    model: str = ""


class UsageGroup(StrEnum):
    """What usage is added up by."""

    AGENT = "agent"
    SESSION = "session"
    DAY = "day"
    MODEL = "model"


@dataclass(frozen=True)
class SumFilter:
    """What is added up; what is empty lets all through."""

    group: UsageGroup
    agent_id: str = ""
    session_id: str = ""
    since_day: str = ""
    until_day: str = ""


@dataclass(frozen=True)
class Sum:
    """What was used in all under one key."""

    key: str
    calls: int
    amounts: Amounts

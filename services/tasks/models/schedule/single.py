"""Schedules of one instant, and of none."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from services.pipeline.cel import compile_question
from services.pipeline.errors import ExpressionError
from services.tasks.models.schedule.fault import Unreadable, require
from services.tasks.models.schedule.wall_clock import instant_of, shown_at
from services.tasks.models.task import ScheduleKind
from services.tasks.models.topic import pattern_fault


@dataclass(frozen=True)
class Once:
    """One instant."""

    instant: datetime
    wall: datetime | None
    """The local time that it was given as, if it was."""

    def first(self, now: datetime) -> datetime | None:
        return self.instant

    def after(self, instant: datetime) -> datetime | None:
        return self.instant if self.instant > instant else None

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        if self.instant > instant:
            yield self.instant

    def named(self, instant: datetime) -> datetime | None:
        return self.wall


@dataclass(frozen=True)
class Never:
    """No schedule at all."""

    def first(self, now: datetime) -> datetime | None:
        return None

    def after(self, instant: datetime) -> datetime | None:
        return None

    def upcoming(self, instant: datetime) -> Iterator[datetime]:
        return iter(())

    def named(self, instant: datetime) -> datetime | None:
        return None


def read_once(expression: str, zone: tzinfo, anchor: datetime) -> Once:
    """An RFC 3339 instant, or a local time without offset. Raises Unreadable."""
    require(expression, ScheduleKind.ONCE)
    try:
        # RFC 3339 lets `t` and `z` be small.
        given = datetime.fromisoformat(expression.upper())
    except ValueError:
        description = f"{expression!r} is not an instant: use RFC 3339, such as 2026-12-24T18:00:00+02:00"
        raise Unreadable(description) from None
    try:
        once = Once(given.astimezone(UTC), None) if given.tzinfo else Once(instant_of(given, zone), given)
        shown_at(once.instant, zone)  # what cannot be shown there cannot be listed either
        return once
    except OverflowError:
        raise Unreadable(f"{expression!r} is out of range") from None


def read_topic(expression: str, zone: tzinfo, anchor: datetime) -> Never:
    """A topic, or a pattern of topics: no time at all. Raises Unreadable."""
    require(expression, ScheduleKind.EVENT)
    if fault := pattern_fault(expression):
        raise Unreadable(fault)
    return Never()


def read_condition(expression: str, zone: tzinfo, anchor: datetime) -> Never:
    """An expression over what a probe tells: no time at all. Raises Unreadable when it cannot be evaluated."""
    require(expression, ScheduleKind.CONDITION)
    try:
        compile_question(expression)
    except ExpressionError as fault:
        raise Unreadable(str(fault)) from None
    return Never()


def read_never(expression: str, zone: tzinfo, anchor: datetime) -> Never:
    """No expression. Raises Unreadable for one."""
    if expression:
        raise Unreadable("must be empty for a manual task: it has no schedule")
    return Never()

"""Recurrences out of the lines of an iCalendar: RRULE, DTSTART and EXDATE."""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from services.tasks.models.schedule.fault import Unreadable, require
from services.tasks.models.schedule.recurrence import Recurrence
from services.tasks.models.schedule.rule import Frequency, Rule, read_rule
from services.tasks.models.schedule.wall_clock import instant_of, shown_at
from services.tasks.models.task import ScheduleKind

# Finer recurrences say SECONDLY, MINUTELY or HOURLY.
MAX_TIMES_A_DAY = 1440
_AROUND_SEMICOLONS = re.compile(r"\s*;\s*")
_MICROSECOND = timedelta(microseconds=1)
_LAST_SECOND = time(23, 59, 59)


def read_recurrence(expression: str, zone: tzinfo, anchor: datetime) -> Recurrence:
    """A rule, with or without `RRULE:`, and lines with DTSTART and EXDATE if there are any. Raises Unreadable.

    Without DTSTART it begins at the anchor, which is no time of it, cut to the whole minute; of a rule by the second,
    to the whole second; where BYHOUR stands without BYMINUTE, to the whole hour: who says 9 means 09:00.

    An UNTIL without a time of day includes that day, and an EXDATE without one leaves it out.
    """
    require(expression, ScheduleKind.RRULE)
    try:
        return _recurrence(_read_lines(expression, zone), zone, anchor)
    except OverflowError:
        raise Unreadable(f"{expression!r} is out of range") from None
    except Unreadable as fault:
        raise Unreadable(f"{expression!r} is not a recurrence rule: it {fault}") from None


@dataclass
class _Lines:
    rule: Rule | None = None
    start: datetime | None = None
    except_at: set[datetime] = field(default_factory=set)
    except_on: set[date] = field(default_factory=set)


def _read_lines(expression: str, zone: tzinfo) -> _Lines:
    lines = _Lines()
    for line in _AROUND_SEMICOLONS.sub(";", expression).split():
        head, colon, value = line.partition(":")
        name, *parameters = (head if colon else "RRULE").split(";")
        value = value if colon else line
        match name.upper():
            case "RRULE" if lines.rule is None:
                lines.rule = read_rule(value)
            case "DTSTART" if lines.start is None:
                _check_parameters(parameters, zone)
                lines.start = _wall(value, "DTSTART", zone)[0]
            case "EXDATE":
                _check_parameters(parameters, zone)
                _read_exceptions(lines, value, zone)
            case "RRULE" | "DTSTART":
                raise Unreadable(f"has more than one {name.upper()}")
            case _:
                raise Unreadable(f"has a line {name!r}: use RRULE, DTSTART and EXDATE")
    return lines


def _read_exceptions(lines: _Lines, value: str, zone: tzinfo) -> None:
    for text in value.split(","):
        wall, is_day = _wall(text, "EXDATE", zone)
        if is_day:
            lines.except_on.add(wall.date())
        else:
            lines.except_at.add(instant_of(wall, zone))


def _check_parameters(parameters: list[str], zone: tzinfo) -> None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.upper() == "TZID" and value.lower() != str(zone).lower():
            raise Unreadable(f"has TZID={value}, but the task's timezone is {zone}: leave it out, or change the task's")
        if name.upper() not in ("TZID", "VALUE"):
            raise Unreadable(f"has a parameter {name!r}: use TZID or VALUE")


def _wall(text: str, name: str, zone: tzinfo) -> tuple[datetime, bool]:
    """A local time, and whether it is a day without time; one that ends in Z is turned into the zone's."""
    try:
        given = datetime.fromisoformat(text.upper()).replace(microsecond=0)
    except ValueError:
        raise Unreadable(f"has {name} {text!r}: use 20260302T090000, local or, with a Z, in UTC") from None
    return (shown_at(given, zone) if given.tzinfo else given), "T" not in text.upper()


def _recurrence(lines: _Lines, zone: tzinfo, anchor: datetime) -> Recurrence:
    if lines.rule is None:
        raise Unreadable("has no rule: add one, such as RRULE:FREQ=DAILY")
    rule = lines.rule
    if lines.start is None:
        start = anchor.astimezone(UTC) - _cut(rule, shown_at(anchor, zone))
        begin = anchor
    else:
        start = instant_of(lines.start, zone)
        begin = start - _MICROSECOND
    filled = _filled(rule, lines.start or shown_at(start, zone))
    except_at, except_on = frozenset(lines.except_at), frozenset(lines.except_on)
    recurrence = Recurrence(filled, start, begin, _until(rule, zone), except_at, except_on, zone)
    return recurrence if rule.count is None else replace(recurrence, until=recurrence.counted(rule.count))


def _cut(rule: Rule, shown: datetime) -> timedelta:
    """How long before the anchor the recurrence begins."""
    if rule.hours and not rule.minutes:
        return shown - shown.replace(minute=0, second=0, microsecond=0)
    if rule.frequency is Frequency.SECONDLY:
        return timedelta(microseconds=shown.microsecond)
    return shown - shown.replace(second=0, microsecond=0)


def _until(rule: Rule, zone: tzinfo) -> datetime | None:
    if rule.until is None:
        return None
    wall, is_day = _wall(rule.until, "UNTIL", zone)
    return instant_of(datetime.combine(wall, _LAST_SECOND) if is_day else wall, zone)


def _filled(rule: Rule, start: datetime) -> Rule:
    """The rule with what it leaves to its start."""
    if rule.frequency is Frequency.HOURLY and rule.interval == 1 and rule.minutes:
        # At some minutes of every hour is every minute that is one of them, also where half an hour is skipped.
        return replace(rule, frequency=Frequency.MINUTELY)
    if rule.frequency >= Frequency.HOURLY:
        return rule
    rule = replace(
        rule,
        hours=rule.hours or (start.hour,),
        minutes=rule.minutes or (start.minute,),
        seconds=rule.seconds or (start.second,),
    )
    if (times := len(rule.hours) * len(rule.minutes) * len(rule.seconds)) > MAX_TIMES_A_DAY:
        raise Unreadable(f"names {times} times a day, at most {MAX_TIMES_A_DAY}: use FREQ=SECONDLY")
    return _with_day_of_start(rule, start)


def _with_day_of_start(rule: Rule, start: datetime) -> Rule:
    if rule.weekdays or rule.month_days or rule.year_days or rule.frequency is Frequency.DAILY:
        return rule
    if rule.frequency is Frequency.WEEKLY or rule.week_numbers:
        return replace(rule, weekdays=((0, start.weekday()),))
    months = rule.months or ((start.month,) if rule.frequency is Frequency.YEARLY else ())
    return replace(rule, month_days=(start.day,), months=months)

"""Recurrence rules (RFC 5545, section 3.3.10) out of their text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from services.tasks.models.schedule.fault import Unreadable

MAX_COUNT = 10_000
MAX_INTERVAL = 31_536_000
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_WEEKDAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")


class Frequency(IntEnum):
    """How long a period is; the finer, the greater."""

    YEARLY = 0
    MONTHLY = 1
    WEEKLY = 2
    DAILY = 3
    HOURLY = 4
    MINUTELY = 5
    SECONDLY = 6


@dataclass(frozen=True)
class Rule:
    """What a rule says; an empty tuple is a part that it does not name."""

    frequency: Frequency
    interval: int
    count: int | None
    until: str | None
    """As it is written."""
    week_start: int
    """0 is Monday."""
    months: tuple[int, ...]
    week_numbers: tuple[int, ...]
    year_days: tuple[int, ...]
    month_days: tuple[int, ...]
    weekdays: tuple[tuple[int, int], ...]
    """(which, weekday): 0 for each of them, -1 for the last one of the month or year."""
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    positions: tuple[int, ...]


def read_rule(text: str) -> Rule:
    """A rule, without its `RRULE:`. Raises Unreadable."""
    parts = _parts(text)
    frequency = _frequency(parts)
    if "COUNT" in parts and "UNTIL" in parts:
        raise Unreadable("has both COUNT and UNTIL: only one of them can end it")
    rule = Rule(
        frequency=frequency,
        interval=_number(parts, "INTERVAL", MAX_INTERVAL) or 1,
        count=_number(parts, "COUNT", MAX_COUNT),
        until=parts.get("UNTIL"),
        week_start=_week_start(parts.get("WKST", "MO")),
        months=_numbers(parts, "BYMONTH", 1, 12),
        week_numbers=_numbers(parts, "BYWEEKNO", 1, 53, from_the_end=True),
        year_days=_numbers(parts, "BYYEARDAY", 1, 366, from_the_end=True),
        month_days=_numbers(parts, "BYMONTHDAY", 1, 31, from_the_end=True),
        weekdays=_weekdays(parts.get("BYDAY", "")),
        hours=_numbers(parts, "BYHOUR", 0, 23),
        minutes=_numbers(parts, "BYMINUTE", 0, 59),
        seconds=_numbers(parts, "BYSECOND", 0, 59),
        positions=_numbers(parts, "BYSETPOS", 1, 366, from_the_end=True),
    )
    _check(rule, parts)
    return rule


def _parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in filter(None, text.upper().split(";")):
        name, _, value = part.partition("=")
        if name not in _NAMES:
            raise Unreadable(f"has an unknown part {name!r}: use {', '.join(_NAMES)}")
        if name in parts:
            raise Unreadable(f"names {name} twice")
        if not value:
            raise Unreadable(f"says nothing for {name}")
        parts[name] = value
    return parts


def _frequency(parts: Mapping[str, str]) -> Frequency:
    if "FREQ" not in parts:
        raise Unreadable("has no FREQ: begin with one, such as FREQ=DAILY")
    try:
        return Frequency[parts["FREQ"]]
    except KeyError:
        raise Unreadable(f"has an unknown FREQ {parts['FREQ']!r}: use {', '.join(Frequency.__members__)}") from None


def _number(parts: Mapping[str, str], name: str, highest: int) -> int | None:
    if name not in parts:
        return None
    numbers = _numbers(parts, name, 1, highest)
    if len(numbers) != 1:
        raise Unreadable(f"says {name}={parts[name]}: use one number")
    return numbers[0]


def _numbers(
    parts: Mapping[str, str], name: str, lowest: int, highest: int, *, from_the_end: bool = False
) -> tuple[int, ...]:
    """The numbers of a part, in order; where they may count from the end, they may be negative."""
    if name not in parts:
        return ()
    pattern = re.compile(r"[+-]?\d{1,9}" if from_the_end else r"\d{1,9}", re.ASCII)
    texts = parts[name].split(",")
    numbers = {int(text) for text in texts if pattern.fullmatch(text)}
    if len(numbers) < len(set(texts)) or any(not lowest <= abs(number) <= highest for number in numbers):
        signed = f" or -{highest}..-{lowest}" if from_the_end else ""
        raise Unreadable(f"says {name}={parts[name]}: use {lowest}..{highest}{signed}")
    return tuple(sorted(numbers))


def _week_start(text: str) -> int:
    if text not in _WEEKDAYS:
        raise Unreadable(f"says WKST={text}: use one of {', '.join(_WEEKDAYS)}")
    return _WEEKDAYS.index(text)


def _weekdays(text: str) -> tuple[tuple[int, int], ...]:
    if not text:
        return ()
    found = [_WEEKDAY.fullmatch(day) for day in text.split(",")]
    days = tuple((int(match[1] or 0), _WEEKDAYS.index(match[2])) for match in found if match)
    if len(days) < len(found) or any(match and match[1] and not 1 <= abs(int(match[1])) <= 53 for match in found):
        raise Unreadable(f"says BYDAY={text}: use MO, TU, ... or, of a month or year, 2MO or -1FR")
    return days


def _check(rule: Rule, parts: Mapping[str, str]) -> None:
    """Raises Unreadable for what RFC 5545 rules out, and for positions within an hour."""
    frequency = rule.frequency
    for name, allowed in _ONLY_WITH.items():
        if name in parts and frequency not in allowed:
            raise Unreadable(f"has {name}, which goes with {' and '.join(f.name for f in allowed)} only")
    if any(which for which, _ in rule.weekdays):
        _check_numbered_weekdays(rule)
    if rule.positions and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise Unreadable("has BYSETPOS, but no other BY... part that it could choose from")


def _check_numbered_weekdays(rule: Rule) -> None:
    if rule.frequency > Frequency.MONTHLY or rule.week_numbers:
        raise Unreadable("has BYDAY with a number, which goes with MONTHLY, and YEARLY without BYWEEKNO, only")
    of_a_month = rule.frequency is Frequency.MONTHLY or rule.months
    if of_a_month and any(abs(which) > 5 for which, _ in rule.weekdays):
        raise Unreadable("has BYDAY with a number above 5, and no month has so many of one weekday")


_NAMES = (
    "FREQ",
    "INTERVAL",
    "COUNT",
    "UNTIL",
    "WKST",
    "BYMONTH",
    "BYWEEKNO",
    "BYYEARDAY",
    "BYMONTHDAY",
    "BYDAY",
    "BYHOUR",
    "BYMINUTE",
    "BYSECOND",
    "BYSETPOS",
)
_SUBDAILY = (Frequency.HOURLY, Frequency.MINUTELY, Frequency.SECONDLY)
_ONLY_WITH = {
    "BYWEEKNO": (Frequency.YEARLY,),
    "BYYEARDAY": (Frequency.YEARLY, *_SUBDAILY),
    "BYMONTHDAY": (Frequency.YEARLY, Frequency.MONTHLY, Frequency.DAILY, *_SUBDAILY),
    "BYSETPOS": (Frequency.YEARLY, Frequency.MONTHLY, Frequency.WEEKLY, Frequency.DAILY),
}

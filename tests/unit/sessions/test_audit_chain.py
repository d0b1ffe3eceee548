"""Whatever is done to the audit's entries by somebody without the key is found, where it was done."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.sessions.models.audit import BEGINNING, Action, Entry, Head, chained, faults

KEY = b"k" * 32
START = Head(0, BEGINNING)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TAMPERINGS = 10_000


def action(number: int) -> Action:
    return Action(
        id=f"00000000-0000-7000-8000-{number:012}",
        occurred_at=NOW + timedelta(seconds=number),
        context="tasks",
        actor="ada",
        action="run.approve",
        resource=f"run/{number}",
        before=None,
        after='{"n":1}',
        before_digest="",
        after_digest="a" * 64,
        note="",
        request_id="",
        trace_id="",
        run_id="",
    )


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return list(chained(START, map(action, range(30)), NOW, KEY))


def found(entries: list[Entry], key: bytes = KEY) -> list[int]:
    return [fault.sequence for fault in faults(START, entries, key)]


def edited(chosen: random.Random, entries: list[Entry]) -> tuple[list[Entry], int]:
    """One field of one entry is another; answers where."""
    index = chosen.randrange(len(entries))
    entry = entries[index]
    name = chosen.choice(list(Action.__dataclass_fields__))
    value: Any = getattr(entry.action, name)
    match value:
        case None:
            changed: Any = "{}"
        case datetime():
            changed = value + timedelta(microseconds=chosen.choice([-1, 1, 3_600_000_000]))
        case _:
            cut = chosen.randrange(len(value) + 1)
            changed = value[:cut] + chosen.choice("xyz 0") + value[cut:]
    entries[index] = replace(entry, action=replace(entry.action, **{name: changed}))
    return entries, entry.sequence


def removed(chosen: random.Random, entries: list[Entry]) -> tuple[list[Entry], int]:
    """Some entries are gone, but not the last one: who misses that is the note of the end."""
    first = chosen.randrange(len(entries) - 1)
    last = chosen.randrange(first, len(entries) - 1)
    return entries[:first] + entries[last + 1 :], first + 1


def swapped(chosen: random.Random, entries: list[Entry]) -> tuple[list[Entry], int]:
    """Two entries have each other's contents, with or without their seals."""
    one, other = sorted(chosen.sample(range(len(entries)), 2))
    first, second = entries[one], entries[other]
    hashes = chosen.choice([(first.hash, second.hash), (second.hash, first.hash)])
    entries[one] = replace(first, action=second.action, hash=hashes[0])
    entries[other] = replace(second, action=first.action, hash=hashes[1])
    return entries, one + 1


def renumbered(chosen: random.Random, entries: list[Entry]) -> tuple[list[Entry], int]:
    """One is removed, and those behind it close the gap."""
    gap = chosen.randrange(len(entries) - 1)
    moved = [replace(entry, sequence=entry.sequence - 1) for entry in entries[gap + 1 :]]
    return entries[:gap] + moved, gap + 1


def sealed_anew(chosen: random.Random, entries: list[Entry]) -> tuple[list[Entry], int]:
    """All from somewhere on are written and sealed anew, with another key."""
    index = chosen.randrange(len(entries))
    before = entries[index - 1] if index else None
    head = Head(before.sequence, before.hash) if before else START
    actions = [replace(entry.action, actor="eve") for entry in entries[index:]]
    return entries[:index] + list(chained(head, actions, NOW, b"another key")), index + 1


WAYS: list[Callable[[random.Random, list[Entry]], tuple[list[Entry], int]]] = [
    edited,
    removed,
    swapped,
    renumbered,
    sealed_anew,
]


def test_what_nobody_has_touched_is_whole(entries: list[Entry]) -> None:
    assert found(entries) == []
    assert found([]) == []


def test_ten_thousand_tamperings_are_found_where_they_were_made(entries: list[Entry]) -> None:
    chosen = random.Random(4711)
    for number in range(TAMPERINGS):
        way = WAYS[number % len(WAYS)]
        tampered, place = way(chosen, list(entries))
        places = found(tampered)
        assert places, f"{way.__name__} was not found"
        assert places[0] == place, f"{way.__name__} was found at {places[0]} instead of {place}"


def test_each_of_several_edits_is_found(entries: list[Entry]) -> None:
    tampered = list(entries)
    for index in (3, 11, 29):
        tampered[index] = replace(entries[index], action=replace(entries[index].action, actor="eve"))
    assert found(tampered) == [4, 12, 30]


def test_fields_do_not_run_into_each_other() -> None:
    one, other = (next(chained(START, [changed], NOW, KEY)).hash for changed in _shifted())
    assert one != other


def _shifted() -> tuple[Action, Action]:
    first = action(1)
    return replace(first, note="ab", request_id="c"), replace(first, note="a", request_id="bc")


def test_another_key_fits_nothing(entries: list[Entry]) -> None:
    assert found(entries, b"another key") == [entry.sequence for entry in entries]
    assert Head(3, "a").seal(KEY) != Head(3, "a").seal(b"another key")

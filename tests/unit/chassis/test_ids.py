"""Identifiers."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from services.chassis.ids import id_at, is_uuid, lowest_id_after, lowest_id_at, new_id

AT = datetime(2026, 3, 1, 2, 30, 0, 123456, tzinfo=UTC)


def test_ids_are_uuids_of_version_seven_as_text() -> None:
    made = new_id()
    assert uuid.UUID(made).version == 7
    assert made == str(uuid.UUID(made))


def test_ids_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_an_id_of_an_instant_is_one_of_version_seven_and_of_that_millisecond() -> None:
    made = uuid.UUID(id_at(AT))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(AT.timestamp() * 1000)


def test_ids_of_instants_sort_by_the_microsecond() -> None:
    made = [id_at(AT + timedelta(microseconds=number)) for number in range(5000)]
    assert made == sorted(made)


def test_ids_of_one_instant_differ() -> None:
    assert len({id_at(AT) for _ in range(10_000)}) == 10_000


def test_the_lowest_id_bounds_those_of_its_millisecond_on() -> None:
    bound = lowest_id_at(AT)
    assert bound <= id_at(AT.replace(microsecond=123000))
    assert id_at(AT.replace(microsecond=122999)) < bound
    before = lowest_id_at(datetime.now(UTC))
    made = new_id()
    assert before <= made < lowest_id_at(datetime.now(UTC) + timedelta(milliseconds=1))


def test_the_lowest_id_after_bounds_those_of_whole_milliseconds_from_an_instant_on() -> None:
    bound = lowest_id_after(AT)
    assert id_at(AT.replace(microsecond=123999)) < bound <= id_at(AT.replace(microsecond=124000))
    whole = AT.replace(microsecond=123000)
    assert lowest_id_after(whole) == lowest_id_at(whole) == lowest_id_at(AT)


@pytest.mark.parametrize("instant", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_every_instant_has_an_id(instant: datetime) -> None:
    assert uuid.UUID(id_at(instant)).version == uuid.UUID(lowest_id_at(instant)).version == 7
    assert (instant.year == 1) == (lowest_id_at(instant) < lowest_id_at(AT)) == (lowest_id_after(instant) < id_at(AT))


@pytest.mark.parametrize("text", ["0199aaaa-0000-7000-8000-00000000000a", "0199AAAA-0000-7000-8000-00000000000A"])
def test_ids_are_uuids_in_either_case(text: str) -> None:
    assert is_uuid(text)


@pytest.mark.parametrize(
    "text", ["", "me", "0199aaaa000070008000000000000000a", "{0199aaaa-0000-7000-8000-00000000000a}"]
)
def test_what_is_written_otherwise_is_no_id(text: str) -> None:
    assert not is_uuid(text)

"""Identifiers."""

import uuid

from services.chassis.ids import new_id


def test_ids_are_uuids_of_version_seven_as_text() -> None:
    made = new_id()
    assert uuid.UUID(made).version == 7
    assert made == str(uuid.UUID(made))


def test_ids_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)

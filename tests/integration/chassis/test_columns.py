"""Columns that mean the same on both engines."""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import StatementError

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.chassis.upsert import upsert
from tests.integration.chassis import notes
from tests.integration.chassis.conftest import OpenDatabase

_INSTANTS = [
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 59, 59, 1, tzinfo=UTC),
    datetime(2026, 3, 29, 0, 59, 59, 2, tzinfo=UTC),
    datetime(2026, 3, 29, 1, 0, 0, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]


async def test_instants_come_back_to_the_microsecond_in_utc(database: Database) -> None:
    chisinau = timezone(timedelta(hours=3))

    def store(connection: Connection, clock: Clock) -> None:
        for number, instant in enumerate(_INSTANTS[:-1]):
            notes.write(connection, number, at=instant.astimezone(chisinau))
        notes.write(connection, len(_INSTANTS), at=_INSTANTS[-1])
        notes.write(connection, len(_INSTANTS) + 1)

    await database.transact(store)
    stored = select(notes.table.c.at).order_by(notes.table.c.id)
    found = await database.read(lambda connection, clock: list(connection.execute(stored).scalars()))
    assert found == [*_INSTANTS, None]
    assert {instant.tzinfo for instant in found if instant} == {UTC}


_MOVE_ABROAD = text(
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone TO ''Europe/Chisinau''', current_database()); END $$"
)


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_the_time_zone_of_the_server_does_not_matter(database: Database, open_database: OpenDatabase) -> None:
    await database.transact(lambda connection, clock: connection.execute(_MOVE_ABROAD))
    abroad = open_database()
    await abroad.transact(lambda connection, clock: notes.write(connection, 1, at=_INSTANTS[4]))
    for connected in (database, abroad):
        instant, now = await connected.read(
            lambda connection, clock: (connection.execute(select(notes.table.c.at)).scalar_one(), clock.now())
        )
        assert (instant, instant.tzinfo, now.tzinfo) == (_INSTANTS[4], UTC, UTC)


async def test_ids_are_found_however_they_are_written(database: Database) -> None:
    made = new_id()
    found = select(notes.table.c.code).where(notes.table.c.code == made.upper())
    await database.transact(
        lambda connection, clock: connection.execute(insert(notes.table).values(id=1, text="", code=made.upper()))
    )
    assert await database.read(lambda connection, clock: connection.execute(found).scalars().all()) == [made]


async def test_instants_compare_and_sort_as_time_does(database: Database) -> None:
    def store(connection: Connection, clock: Clock) -> None:
        for number, instant in enumerate(reversed(_INSTANTS)):
            notes.write(connection, number, at=instant)

    await database.transact(store)
    at = notes.table.c.at
    later = select(at).where(at > _INSTANTS[1], at <= _INSTANTS[4]).order_by(at)
    found = await database.read(lambda connection, clock: list(connection.execute(later).scalars()))
    assert found == _INSTANTS[2:5]


async def test_a_time_without_a_zone_is_no_instant(database: Database) -> None:
    with pytest.raises(StatementError, match="no time zone"):
        await database.transact(
            lambda connection, clock: notes.write(connection, 1, at=datetime(2026, 1, 1))  # noqa: DTZ001
        )


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "ü"]}, [], "text", None, False, 0, 1.5, 2**53, -1e300, "1e5"])
async def test_json_comes_back_as_it_was(database: Database, value: Any) -> None:
    await database.transact(
        lambda connection, clock: connection.execute(insert(notes.table).values(id=1, text="", extra=value))
    )
    stored = select(notes.table.c.extra, notes.table.c.extra.is_(None))
    found, is_null = await database.read(lambda connection, clock: connection.execute(stored).one())
    assert found == value
    assert is_null == (value is None)


async def test_an_insert_may_give_way_to_what_is_there(database: Database) -> None:
    def write(connection: Connection, clock: Clock, words: str, replace: bool) -> None:
        statement = upsert(connection, notes.table).values(id=1, text=words)
        if replace:
            statement = statement.on_conflict_do_update(index_elements=["id"], set_={"text": words})
        else:
            statement = statement.on_conflict_do_nothing()
        connection.execute(statement)

    for words, replace, expected in (("one", False, "one"), ("two", False, "one"), ("three", True, "three")):
        await database.transact(partial(write, words=words, replace=replace))
        assert await database.read(notes.read) == {1: expected}

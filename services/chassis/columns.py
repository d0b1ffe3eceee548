"""Columns, and names of what is made of them, that mean the same on PostgreSQL and SQLite."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, MetaData, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from services.chassis.clock import EPOCH
from services.chassis.ids import stored_id

_MICROSECOND = timedelta(microseconds=1)


class Timestamp(TypeDecorator[datetime]):
    """An instant: timestamptz on PostgreSQL; microseconds since 1970 on SQLite, whose texts do not compare."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone: an instant needs one")
        if value is None or dialect.name != "sqlite":
            return value
        return (value - EPOCH) // _MICROSECOND

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        # A function for each engine and none in between: this is called for most values that are ever read.
        return _from_microseconds if dialect.name == "sqlite" else _in_utc


class Id(TypeDecorator[str]):
    """A UUID, as lower-case text in Python; what is asked for may be in capitals."""

    impl = Uuid(as_uuid=False)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return _without_dashes if dialect.name == "sqlite" else _with_dashes

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], str | None]:
        # By hand: the type's own way makes a UUID of every value, four times as slow.
        return from_stored_id if dialect.name == "sqlite" else _as_text


def from_stored_id(stored: str | None) -> str | None:
    """An id as SQLite has it, 32 digits, as it is everywhere else."""
    return stored and f"{stored[:8]}-{stored[8:12]}-{stored[12:16]}-{stored[16:20]}-{stored[20:]}"


def _without_dashes(value: str | None) -> str | None:
    return value and stored_id(value).replace("-", "")


def _with_dashes(value: str | None) -> str | None:
    return value and stored_id(value)


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _from_microseconds(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)


def _in_utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""Free JSON; None is SQL NULL."""


def new_metadata() -> MetaData:
    """Where a context declares its tables. Keys, indexes and constraints get the same names on both engines."""
    return MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )

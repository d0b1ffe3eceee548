"""Identifiers."""

import secrets
from datetime import datetime, timedelta
from uuid import UUID

import uuid_utils

from services.chassis.clock import EPOCH

_MICROSECOND = timedelta(microseconds=1)
_LAST_MICROSECOND = (1 << 48) * 1000 - 1
_VERSION, _VARIANT = 7 << 76, 0b10 << 62
_RANDOM_BITS = 62


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) as text: its order is the order of creation, so it also pages."""
    return str(uuid_utils.uuid7())


def id_at(instant: datetime) -> str:
    """A new UUIDv7 of that microsecond: for what began elsewhere, or earlier, and is to sort by then.

    Of such ids, those of an earlier microsecond are always smaller; ids of one microsecond are in no particular
    order, and neither are these and those of `new_id` within one millisecond. What is before 1970 counts as 1970.
    """
    millisecond, microseconds = divmod(_since_epoch(instant), 1000)
    # The twelve bits behind the milliseconds hold the fraction of one (RFC 9562, section 6.2, method 3).
    return _uuid7(millisecond, microseconds * 4096 // 1000, secrets.randbits(_RANDOM_BITS))


def lowest_id_at(instant: datetime) -> str:
    """The bound of the ids from the instant's millisecond on, the one that it falls in.

    Milliseconds are what all ids know. Of those within one, only the ids of `id_at` know more.
    """
    return _uuid7(_since_epoch(instant) // 1000, 0, 0)


def lowest_id_after(instant: datetime) -> str:
    """The bound of the ids whose whole millisecond is of the instant or later.

    It is that of `lowest_id_at` when the instant is a whole millisecond, else that of the next one.
    """
    return _uuid7(-(-_since_epoch(instant) // 1000), 0, 0)


def stored_id(text: str) -> str:
    """A UUID in small letters, as it is stored and compared; in capitals it is the same one (RFC 9562, section 4)."""
    return text.lower()


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID as ids are written."""
    try:
        return str(UUID(text)) == stored_id(text)
    except ValueError:
        return False


def _since_epoch(instant: datetime) -> int:
    """Microseconds since 1970, within what an id can hold."""
    return min(max((instant - EPOCH) // _MICROSECOND, 0), _LAST_MICROSECOND)


def _uuid7(millisecond: int, fraction: int, random: int) -> str:
    return str(UUID(int=millisecond << 80 | _VERSION | fraction << 64 | _VARIANT | random))

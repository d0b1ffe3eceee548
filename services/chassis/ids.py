"""Identifiers."""

import uuid_utils


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) as text: its order is the order of creation, so it also pages."""
    return str(uuid_utils.uuid7())


def stored_id(text: str) -> str:
    """A UUID in small letters, as it is stored and compared; in capitals it is the same one (RFC 9562, section 4)."""
    return text.lower()

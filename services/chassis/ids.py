"""Identifiers."""

import uuid_utils


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) as text: its order is the order of creation, so it also pages."""
    return str(uuid_utils.uuid7())

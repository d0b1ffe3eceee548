"""UUIDs as they are stored."""


def to_id(text: str) -> str:
    """The UUID in small letters, as everything compares it; in capitals it is the same one (RFC 9562, section 4)."""
    return text.lower()

"""UUIDs as they are stored."""


def to_id(text: str) -> str:
    """The UUID in small letters: in capitals it is the same one, but not for SQLite, which compares texts."""
    return text.lower()

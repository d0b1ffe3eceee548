"""The months that PostgreSQL keeps the history in. A function makes them, for the service owns no tables."""

from sqlalchemy import Connection, text

_make_months = text("SELECT make_run_history_months(:ahead)")


def make_months(connection: Connection, ahead: int) -> int:
    """Makes the months that are missing, up to so many after the current one; answers how many. 24 is the most."""
    made: int = connection.execute(_make_months, {"ahead": ahead}).scalar_one()
    return made

"""The tables of the workflows context."""

from sqlalchemy import Column, Integer, String, Table

from services.chassis.columns import Json, Timestamp, new_metadata

metadata = new_metadata()

# Only ever inserted into: a changed template is a new version.
templates = Table(
    "templates",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

"""The names of enum values: `COLOUR_DARK_RED` of the enum Colour is `dark_red` in JSON, models and messages."""

import re
from functools import cache

from google.protobuf.descriptor import EnumDescriptor

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@cache
def prefix(enum_name: str) -> str:
    """What the names of an enum's values begin with in the contract."""
    return _WORD_START.sub("_", enum_name).upper() + "_"


def short_names(enum: EnumDescriptor) -> dict[int, str]:
    """Each number's name in lower case, without the enum's own name in front. Of two aliases the first one counts."""
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name.removeprefix(prefix(enum.name)).lower())
    return names


def accepted_names(enum: EnumDescriptor) -> dict[str, int]:
    """What a caller may write: the short name, or the contract's own."""
    accepted = {value.name.removeprefix(prefix(enum.name)).lower(): value.number for value in enum.values}
    return accepted | {value.name: value.number for value in enum.values}


def choices(enum: EnumDescriptor) -> list[str]:
    """The short names worth offering: all but the zero that stands for `not given`."""
    return [name for number, name in short_names(enum).items() if number != 0 or name != "unspecified"]

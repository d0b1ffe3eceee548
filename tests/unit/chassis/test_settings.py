"""Settings from the environment."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.chassis.config import ConfigurationError, load, setting


@dataclass(frozen=True)
class Settings:
    name: str = setting("KIOSK_NAME", help="what it is called")
    port: int = setting("KIOSK_PORT", default=80, help="where it listens")
    ratio: float = setting("KIOSK_RATIO", default=0.5, help="how much of it")
    open: bool = setting("KIOSK_OPEN", default=False, help="whether it is")
    home: Path = setting("KIOSK_HOME", default=Path("here"), help="where it lives")
    limit: int | None = setting("KIOSK_LIMIT", default=None, help="how many at most")
    owner: str | None = setting("KIOSK_OWNER", default=None, help="whose it is")
    spare: Path | None = setting("KIOSK_SPARE", default=None, help="where else")


def test_variables_fill_fields_of_every_type() -> None:
    settings = load(
        Settings,
        {
            "KIOSK_NAME": "corner",
            "KIOSK_PORT": "8080",
            "KIOSK_RATIO": "0.25",
            "KIOSK_OPEN": "yes",
            "KIOSK_HOME": "/srv/kiosk",
            "KIOSK_LIMIT": "7",
            "KIOSK_OWNER": "ada",
            "KIOSK_SPARE": "/srv/spare",
        },
    )
    assert settings == Settings("corner", 8080, 0.25, True, Path("/srv/kiosk"), 7, "ada", Path("/srv/spare"))


def test_what_is_unset_has_its_default() -> None:
    assert load(Settings, {"KIOSK_NAME": "corner"}) == Settings("corner")


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(Settings, {"KIOSK_NAME": "corner", "KIOSK_PORT": "", "KIOSK_LIMIT": ""}) == Settings("corner")
    with pytest.raises(ConfigurationError, match="KIOSK_NAME is not set: what it is called"):
        load(Settings, {"KIOSK_NAME": ""})


def test_a_missing_variable_is_named_with_what_it_is_for() -> None:
    with pytest.raises(ConfigurationError, match="KIOSK_NAME is not set: what it is called"):
        load(Settings, {})


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_flags_that_are_on(text: str) -> None:
    assert load(Settings, {"KIOSK_NAME": "corner", "KIOSK_OPEN": text}).open


@pytest.mark.parametrize("text", ["0", "False", "no", "OFF"])
def test_flags_that_are_off(text: str) -> None:
    assert not load(Settings, {"KIOSK_NAME": "corner", "KIOSK_OPEN": text}).open


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("KIOSK_PORT", "eighty", "KIOSK_PORT is 'eighty', which is not of type int"),
        ("KIOSK_RATIO", "half", "KIOSK_RATIO is 'half', which is not of type float"),
        ("KIOSK_OPEN", "maybe", "KIOSK_OPEN is 'maybe', which is not of type bool"),
        ("KIOSK_LIMIT", "none", "KIOSK_LIMIT is 'none', which is not of type int"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(variable: str, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        load(Settings, {"KIOSK_NAME": "corner", variable: text})

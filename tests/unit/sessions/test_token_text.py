"""The text form of tokens."""

import pytest

from services.sessions import tokens


def test_a_token_has_its_four_parts_and_is_never_the_same() -> None:
    text = tokens.new_token()
    prefix, key_id, secret, checksum = text.split("_")
    assert (prefix, len(key_id), len(secret), len(checksum)) == ("baton", 16, 43, 8)
    assert tokens.key_id(text) == key_id
    assert tokens.new_token() != text


@pytest.mark.parametrize("position", range(len("baton_") + 16 + 1 + 43))
def test_one_mistyped_character_is_noticed(position: int) -> None:
    text = tokens.new_token()
    mistyped = text[:position] + ("x" if text[position] != "x" else "y") + text[position + 1 :]
    assert tokens.key_id(mistyped) is None


@pytest.mark.parametrize(
    "text",
    ["", "baton", "baton___", "baton_abc_def_00000000", "Bearer baton_a_b_c", "ä" * 77, "baton_" + "a" * 10_000],
)
def test_what_is_not_a_token_has_no_key_id(text: str) -> None:
    assert tokens.key_id(text) is None


@pytest.mark.parametrize("surround", ["{}\n", " {}", "{}_", "{}0"])
def test_nothing_may_surround_a_token(surround: str) -> None:
    assert tokens.key_id(surround.format(tokens.new_token())) is None


def test_the_digest_is_of_the_whole_token() -> None:
    text = tokens.new_token()
    assert len(tokens.digest(text)) == 32
    assert tokens.digest(text) != tokens.digest(text[:-1])

"""How long a token opens anything."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.sessions.models.token import MintedToken, Token

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TOKEN = Token("id", "key", "agent", b"hash-of-secret", (), created_at=NOON, expires_at=NOON + timedelta(hours=1))


def test_a_token_lives_until_it_expires() -> None:
    assert TOKEN.is_live(NOON)
    assert TOKEN.is_live(TOKEN.expires_at - timedelta(microseconds=1))
    assert not TOKEN.is_live(TOKEN.expires_at)


def test_a_revoked_token_is_dead_at_once() -> None:
    assert not replace(TOKEN, revoked_at=NOON).is_live(NOON)


def test_secrets_are_not_in_what_a_log_would_print() -> None:
    printed = repr(MintedToken(TOKEN, text="baton_secret"))
    assert "baton_secret" not in printed
    assert "hash-of-secret" not in printed

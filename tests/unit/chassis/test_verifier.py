"""Access tokens, checked by a service itself."""

import base64
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, OKPKey, RSAKey

from services.chassis.auth import Verifier
from services.chassis.call import Caller
from services.chassis.clock import SystemClock
from services.chassis.errors import Unauthenticated, Unavailable
from tests.support.clock import ManualClock


class Issuer:
    """Writes the keys that a verifier reads, and signs with whatever it is told to."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path, self._clock, self._writes = path, clock, 0
        self.key = OKPKey.generate_key("Ed25519", auto_kid=True)
        self.publish(self.key)

    def publish(self, *keys: OKPKey) -> None:
        self.write(orjson.dumps(KeySet(list(keys)).as_dict(private=False)))

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)
        self._writes += 1
        os.utime(self.path, (self._writes, self._writes))  # clocks of file systems are coarse

    def claims(self, **changes: Any) -> dict[str, Any]:
        expires_at = self._clock.now() + timedelta(seconds=60)
        claims = {"iss": "baton", "sub": "ada", "scopes": ["kiosk:read"], "jti": "t1", "exp": expires_at.timestamp()}
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, key: Any = None, *, alg: str = "Ed25519", **changes: Any) -> str:
        signing = key or self.key
        return jwt.encode({"alg": alg, "kid": self.key.kid}, self.claims(**changes), signing, algorithms=[alg])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(tmp_path: Path, clock: ManualClock) -> Issuer:
    return Issuer(tmp_path / "jwks.json", clock)


@pytest.fixture
def verifier(issuer: Issuer, clock: ManualClock) -> Verifier:
    return Verifier(issuer.path, clock)


def _refuses(verifier: Verifier, token: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        verifier.verify(token)
    assert refusal.value.reason == "TOKEN_INVALID"


def test_a_good_token_says_who_calls(verifier: Verifier, issuer: Issuer) -> None:
    assert verifier.verify(issuer.token())[0] == Caller("ada", frozenset({"kiosk:read"}), "t1")


def test_a_token_may_say_what_its_agent_works_as(verifier: Verifier, issuer: Issuer) -> None:
    assert verifier.verify(issuer.token(role="planner"))[0].role == "planner"
    assert verifier.verify(issuer.token())[0].role == ""


def test_a_token_ends_when_it_says_even_if_it_was_seen_before(
    verifier: Verifier, issuer: Issuer, clock: ManualClock
) -> None:
    token = issuer.token()
    verifier.verify(token)
    clock.advance(seconds=59)
    verifier.verify(token)
    clock.advance(seconds=1)
    _refuses(verifier, token)


def test_an_expired_token_is_refused_at_first_sight(verifier: Verifier, issuer: Issuer, clock: ManualClock) -> None:
    _refuses(verifier, issuer.token(exp=(clock.now() - timedelta(seconds=1)).timestamp()))


def test_a_token_of_another_key_is_refused(verifier: Verifier, issuer: Issuer) -> None:
    _refuses(verifier, issuer.token(OKPKey.generate_key("Ed25519")))


@pytest.mark.parametrize("missing", ["iss", "sub", "scopes", "jti", "exp"])
def test_a_token_that_lacks_a_claim_is_refused(verifier: Verifier, issuer: Issuer, missing: str) -> None:
    _refuses(verifier, issuer.token(**{missing: None}))


@pytest.mark.parametrize("changes", [{"iss": "somebody"}, {"scopes": 7}, {"exp": "tomorrow"}, {"sub": ""}, {"role": 7}])
def test_a_token_with_a_wrong_claim_is_refused(verifier: Verifier, issuer: Issuer, changes: dict[str, Any]) -> None:
    _refuses(verifier, issuer.token(**changes))


def _part(content: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(content)).decode().rstrip("=")


def _unsigned(issuer: Issuer) -> str:
    return f"{_part({'alg': 'none', 'kid': issuer.key.kid})}.{_part(issuer.claims())}."


def _signed_with_the_public_key_as_secret(issuer: Issuer) -> str:
    return issuer.token(OctKey.import_key(issuer.path.read_bytes()), alg="HS256")


def _signed_by_rsa(issuer: Issuer) -> str:
    return issuer.token(RSAKey.generate_key(2048), alg="RS256")


def _other_claims_under_the_same_signature(issuer: Issuer) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{_part(issuer.claims(scopes=['admin']))}.{signature}"


def _deeply_nested_head(issuer: Issuer) -> str:
    nested = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5000 + b"]" * 5000 + b"}").decode().rstrip("=")
    return f"{nested}.{_part(issuer.claims())}.c2ln"


@pytest.mark.parametrize(
    "forge",
    [
        _unsigned,
        _signed_with_the_public_key_as_secret,
        _signed_by_rsa,
        _other_claims_under_the_same_signature,
        _deeply_nested_head,
    ],
)
def test_forgeries_are_refused(verifier: Verifier, issuer: Issuer, forge: Callable[[Issuer], str]) -> None:
    _refuses(verifier, forge(issuer))


@settings(deadline=None, max_examples=50)
@given(st.text() | st.lists(st.text("abcXYZ019_-=+/", max_size=9), min_size=3, max_size=5).map(".".join))
def test_garbage_is_refused_as_any_bad_token(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage-jwks.json"
    if not path.exists():
        Issuer(path, ManualClock())
    _refuses(Verifier(path, SystemClock()), text)


def test_a_new_key_is_taken_up_and_the_old_one_dropped(verifier: Verifier, issuer: Issuer) -> None:
    old = issuer.token()
    verifier.verify(old)
    new = OKPKey.generate_key("Ed25519", auto_kid=True)
    issuer.publish(new, issuer.key)
    verifier.verify(old)
    issuer.publish(new)
    _refuses(verifier, old)
    issuer.key = new
    assert verifier.verify(issuer.token())[0].agent_id == "ada"


@pytest.mark.parametrize("content", [b"", b'{"keys": [', b"[]", b'{"keys": [{"kty": "OKP"}]}'])
def test_a_half_written_key_file_is_unavailable_for_now(verifier: Verifier, issuer: Issuer, content: bytes) -> None:
    token, good = issuer.token(), issuer.path.read_bytes()
    issuer.write(content)
    with pytest.raises(Unavailable, match="cannot be read right now"):
        verifier.verify(token)
    issuer.write(good)
    assert verifier.verify(token)[0].agent_id == "ada"


def test_without_keys_nobody_can_tell(issuer: Issuer, clock: ManualClock, tmp_path: Path) -> None:
    verifier = Verifier(tmp_path / "nowhere.json", clock)
    with pytest.raises(Unavailable):
        verifier.verify(issuer.token())


def test_no_keys_at_all_trust_nobody(verifier: Verifier, issuer: Issuer) -> None:
    token = issuer.token()
    issuer.write(b'{"keys": []}')
    with pytest.raises((Unauthenticated, Unavailable)):
        verifier.verify(token)

"""The key that signs access tokens, and its public half that everybody verifies them with."""

import secrets
from pathlib import Path

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from services.chassis.auth import ALGORITHM
from services.chassis.config import ConfigurationError
from services.sessions import files

_AUDIT_KEY_BYTES = 32


def ensure_keys(private_path: Path, public_path: Path) -> OKPKey:
    """The signing key in `private_path` (JWK, mode 0600), created when missing.

    `public_path` (JWKS, RFC 7517, mode 0644) is made to hold exactly the public half. Processes that start at the
    same time on the same files end with the same key. Raises ConfigurationError when the file holds no Ed25519 key.
    """
    if not private_path.exists():
        files.create(private_path, orjson.dumps(_new_key().as_dict(private=True)), files.PRIVATE)
    key = _read(private_path)
    public = orjson.dumps(KeySet([key]).as_dict(private=False))
    if not public_path.exists() or public_path.read_bytes() != public:
        files.replace(public_path, public, files.PUBLIC)
    return key


def ensure_audit_key(path: Path) -> bytes:
    """The key in `path` (32 random bytes, mode 0600) that seals the audit, created when missing.

    Raises ConfigurationError when the file holds something else.
    """
    if not path.exists():
        files.create(path, secrets.token_bytes(_AUDIT_KEY_BYTES), files.PRIVATE)
    key = path.read_bytes()
    if len(key) != _AUDIT_KEY_BYTES:
        raise ConfigurationError(f"{path} holds {len(key)} bytes: the audit's key has {_AUDIT_KEY_BYTES}")
    return key


def _new_key() -> OKPKey:
    # The key id is the key's thumbprint (RFC 7638).
    return OKPKey.generate_key("Ed25519", parameters={"use": "sig", "alg": ALGORITHM}, auto_kid=True)


def _read(path: Path) -> OKPKey:
    try:
        key = OKPKey.import_key(orjson.loads(path.read_bytes()))
    except (JoseError, ValueError, KeyError, TypeError):
        key = None
    if key is None or not key.is_private or key.curve_name != "Ed25519" or key.kid is None:
        raise ConfigurationError(
            f"BATON_SIGNING_KEY_FILE {path} does not hold a private Ed25519 key as a JWK with a kid: "
            "move it away, and a new one is made at the next start"
        )
    return key

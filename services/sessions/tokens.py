"""The text of a token: `baton_<key id>_<secret>_<checksum>`.

The key id finds the stored token, the secret proves it, and the checksum (CRC-32 of all before it, 8 hex digits)
refuses a mistyped one without a look-up. The fixed prefix lets secret scanners recognise a leaked token.
"""

import hashlib
import re
import secrets
import string
import zlib

_ALPHABET = string.digits + string.ascii_letters
_KEY_ID_LENGTH = 16
_SECRET_LENGTH = 43  # 256 bits
_FORM = re.compile(rf"(baton_([0-9A-Za-z]{{{_KEY_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})_([0-9a-f]{{8}})")


def new_token() -> str:
    """A new random token."""
    body = f"baton_{_random(_KEY_ID_LENGTH)}_{_random(_SECRET_LENGTH)}"
    return f"{body}_{_checksum(body)}"


def key_id(text: str) -> str | None:
    """The key id in a token, None when `text` is not a token or was mistyped."""
    form = _FORM.fullmatch(text)
    if form is None or form[3] != _checksum(form[1]):
        return None
    return form[2]


def digest(text: str) -> bytes:
    """What is stored of a token: its SHA-256, 32 bytes. The secret is random, so it needs no salt and no stretching."""
    return hashlib.sha256(text.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"

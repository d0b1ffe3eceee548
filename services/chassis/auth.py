"""Access tokens: checked by services, fetched by those who call them.

A caller's long-lived opaque token is exchanged (AuthService) for a JWT signed with Ed25519 that every service
verifies by itself, from the public keys in a JWKS file (RFC 7517).
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from grpc.aio import Channel
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.chassis import call
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.errors import Unauthenticated, Unavailable

ISSUER = "baton"
ALGORITHM = "Ed25519"
# A revoked token must stop working within 5 seconds: nobody remembers an exchange for longer than this.
EXCHANGE_MEMORY_SECONDS = 4.0
_REMEMBERED = 4096
_claims = jwt.JWTClaimsRegistry(iss={"essential": True, "value": ISSUER}, sub={"essential": True})


def invalid_token() -> Unauthenticated:
    """The one answer to every bad credential: it does not tell unknown from expired from revoked."""
    return Unauthenticated(
        "the token is not valid: send 'Authorization: Bearer <token>' with a token that is neither expired nor revoked",
        reason="TOKEN_INVALID",
    )


class Verifier:
    """Checks access tokens against the public keys in a JWKS file, which is read again when it changes."""

    def __init__(self, keys_file: Path, clock: Clock) -> None:
        self._keys_file = keys_file
        self._clock = clock
        self._keys: KeySet | None = None
        self._modified = 0
        self._verified: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> tuple[Caller, float]:
        """Who the token stands for, and for how many seconds more.

        Raises Unauthenticated, or Unavailable while there are no keys yet.
        """
        now = self._clock.now().timestamp()
        keys = self._current_keys()
        known = self._verified.get(token)
        if known is None:
            known = self._check(token, keys)
            self._remember(token, known)
        caller, expires_at = known
        if now >= expires_at:
            raise invalid_token()
        return caller, expires_at - now

    def _check(self, token: str, keys: KeySet) -> tuple[Caller, float]:
        try:
            claims = jwt.decode(token, keys, algorithms=[ALGORITHM]).claims
            _claims.validate({name: value for name, value in claims.items() if name in ("iss", "sub")})
            caller = Caller(
                str(claims["sub"]),
                frozenset(claims["scopes"]),
                str(claims["jti"]),
                role=_text(claims, "role"),
                run_id=_text(claims, "run_id"),
            )
            return caller, float(claims["exp"])
        except (JoseError, KeyError, TypeError, ValueError):
            raise invalid_token() from None

    def _remember(self, token: str, known: tuple[Caller, float]) -> None:
        with self._lock:
            self._verified[token] = known
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)

    def _current_keys(self) -> KeySet:
        try:
            modified = self._keys_file.stat().st_mtime_ns
            if self._keys is None or modified != self._modified:
                self._keys = KeySet.import_key_set(orjson.loads(self._keys_file.read_bytes()))
                self._modified = modified
                self._verified.clear()
        except (OSError, JoseError, KeyError, TypeError, ValueError):
            raise Unavailable(
                "the keys that tokens are checked with cannot be read right now",
                reason="KEYS_UNAVAILABLE",
                retry_after=1,
            ) from None
        return self._keys


def _text(claims: Mapping[str, Any], name: str) -> str:
    """A claim that tokens need not have; then it is empty."""
    text = claims.get(name, "")
    if not isinstance(text, str):
        raise TypeError
    return text


class TokenExchange:
    """Exchanges opaque tokens for access tokens, each at most once in EXCHANGE_MEMORY_SECONDS."""

    def __init__(self, channel: Channel) -> None:
        self._stub = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._answers: OrderedDict[str, tuple[float, asyncio.Task[str]]] = OrderedDict()

    async def exchange(self, token: str) -> str:
        """The access token for `token`. Raises Unauthenticated, or Unavailable when nobody can tell."""
        asked_at, answer = self._answers.get(token, (0.0, None))
        if answer is None or time.monotonic() - asked_at > EXCHANGE_MEMORY_SECONDS:
            answer = asyncio.create_task(self._ask(token))
            self._remember(token, answer)
        if answer.done():
            return answer.result()
        # Shielded: the first of several waiting callers may give up without failing the others.
        return await asyncio.shield(answer)

    async def _ask(self, token: str) -> str:
        # Several calls may wait for this answer: the deadline of the one that asked first is not theirs.
        call.current.set(None)
        try:
            response = await self._stub.ExchangeToken(auth_service_pb2.ExchangeTokenRequest(token=token))
        except BaseException:
            self._forget(token, asyncio.current_task())
            raise
        return response.access_token

    def _remember(self, token: str, answer: "asyncio.Task[str]") -> None:
        self._answers[token] = (time.monotonic(), answer)
        self._answers.move_to_end(token)
        if len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)

    def _forget(self, token: str, answer: "asyncio.Task[str] | None") -> None:
        # A later question for the same token may have taken its place.
        if token in self._answers and self._answers[token][1] is answer:
            del self._answers[token]


class AccessTokens:
    """The access tokens of one process that calls others under its own name."""

    def __init__(self, exchange: TokenExchange, token: str) -> None:
        self._exchange = exchange
        self._token = token
        self._last = ""

    async def current(self) -> str:
        """An access token; while nobody can be asked for a new one, the last one, which may have a minute to live."""
        try:
            self._last = await self._exchange.exchange(self._token)
        except Unavailable:
            if not self._last:
                raise
        return self._last

"""Who a request comes from, as the backends want to hear it."""

import base64
import math
import random
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from opentelemetry import trace
from starlette.requests import Request

from services.chassis import telemetry
from services.chassis.auth import TokenExchange, invalid_token
from services.chassis.errors import Unauthenticated, Unavailable

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_OPAQUE = re.compile(r"baton_[A-Za-z0-9_.~-]{1,500}")
_PROVEN = "baton.proven"
# Of the 60 that an access token lives. Not all at once: those who came together do not come again together.
_SOON_SECONDS = (10.0, 40.0)


async def access_token(request: Request, exchange: TokenExchange) -> str:
    """The access token of a request: its opaque token exchanged, or its JWT as it is, which the backend checks.

    Raises Unauthenticated `TOKEN_MISSING` or `TOKEN_INVALID`, Unavailable while tokens cannot be checked.
    """
    token = _bearer(request)
    return token if _JWT.fullmatch(token) else await _exchanged(token, request, exchange)


async def checked_access_token(request: Request, exchange: TokenExchange) -> str:
    """The same for what may be answered without a backend: a JWT, which nobody would check, is invalid here."""
    return await _exchanged(_bearer(request), request, exchange)


class Credential:
    """The token of a request whose answer may outlast any one access token."""

    def __init__(self, request: Request, exchange: TokenExchange) -> None:
        self._request, self._exchange = request, exchange
        self._soon_seconds = random.uniform(*_SOON_SECONDS)
        self._last = ""

    async def current(self) -> str:
        """An access token that is good; while nobody can tell, the last one.

        Raises as `access_token` does, and Unauthenticated `TOKEN_INVALID` once a JWT of the caller's own has ended.
        """
        try:
            self._last = await access_token(self._request, self._exchange)
        except Unavailable:
            if _ends_at(self._last) <= time.time():
                raise
        if _ends_at(self._last) <= time.time():
            raise invalid_token()
        return self._last

    def is_to_replace(self, old: str, new: str) -> bool:
        """Whether `new` says something else of the caller than `old`, or lasts longer than `old`, which ends soon."""
        if old == new:
            return False
        ends_soon = _ends_at(old) - time.time() < self._soon_seconds < _ends_at(new) - time.time()
        return ends_soon or _said_of_caller(old) != _said_of_caller(new)


def set_proven(request: Request) -> None:
    """Notes that somebody who can tell has taken the token of a request."""
    request.scope[_PROVEN] = True


def is_proven(request: Request) -> bool:
    """Whether the token of a request is known to be good."""
    return _PROVEN in request.scope


@lru_cache(maxsize=1024)
def claims_of(exchanged: str) -> Mapping[str, Any]:
    """What an access token says, which must come from where tokens are exchanged: nothing is checked here."""
    try:
        part = exchanged.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _ends_at(token: str) -> float:
    """In seconds since 1970: long ago for no token, never for one that does not say, which no service takes."""
    if not token:
        return 0.0
    end = claims_of(token).get("exp")
    return float(end) if isinstance(end, int | float) else math.inf


def _said_of_caller(token: str) -> dict[str, Any]:
    return {name: value for name, value in claims_of(token).items() if name not in ("iat", "exp")}


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING")
    return token


async def _exchanged(token: str, request: Request, exchange: TokenExchange) -> str:
    if not _OPAQUE.fullmatch(token):
        raise invalid_token()
    exchanged = await exchange.exchange(token)
    set_proven(request)
    _note_caller(request, str(claims_of(exchanged).get("sub", "")))
    return exchanged


def _note_caller(request: Request, caller: str) -> None:
    """For the access log and the span."""
    if caller:
        request.scope.setdefault("noted", {})["caller"] = caller
        trace.get_current_span().set_attribute(telemetry.CALLER, caller)

"""Who a request comes from, as the backends want to hear it."""

import re

from starlette.requests import Request

from services.chassis.auth import TokenExchange, invalid_token
from services.chassis.errors import Unauthenticated

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_OPAQUE = re.compile(r"baton_[A-Za-z0-9_.~-]{1,500}")


async def access_token(request: Request, exchange: TokenExchange) -> str:
    """The access token of a request: its opaque token exchanged, or its JWT as it is, which the backend checks.

    Raises Unauthenticated `TOKEN_MISSING` or `TOKEN_INVALID`, Unavailable while tokens cannot be checked.
    """
    token = _bearer(request)
    return token if _JWT.fullmatch(token) else await _exchanged(token, exchange)


async def checked_access_token(request: Request, exchange: TokenExchange) -> str:
    """The same for what may be answered without a backend: a JWT, which nobody would check, is invalid here."""
    return await _exchanged(_bearer(request), exchange)


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING")
    return token


async def _exchanged(token: str, exchange: TokenExchange) -> str:
    if not _OPAQUE.fullmatch(token):
        raise invalid_token()
    return await exchange.exchange(token)

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
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("no token was sent: send 'Authorization: Bearer <token>'", reason="TOKEN_MISSING")
    if _OPAQUE.fullmatch(token):
        return await exchange.exchange(token)
    if _JWT.fullmatch(token):
        return token
    raise invalid_token()

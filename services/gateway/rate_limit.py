"""How often one caller may ask.

A caller is a token that has been found good, wherever its requests come from. Everybody else, those with a token that
was never seen among them, is counted by address: so nobody gets round the limit, or fills the memory, with tokens that
are made up.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

import limits
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.requests import Request
from valkey.exceptions import ValkeyError

from services.chassis.config import ConfigurationError
from services.gateway.credentials import is_proven
from services.gateway.problems import TooManyRequests

OFF = "off"
_DIGEST = "baton.token_digest"
_KNOWN = 4096
_STORAGE_SECONDS = 0.25
# While the shared storage is away every gateway counts for itself, and looks again after so long.
_AWAY_SECONDS = 5.0
_SCHEMES = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")
_log = logging.getLogger(__name__)


class RateLimit:
    """Counts the requests of each caller, in the memory of this process or in a storage that gateways share."""

    def __init__(self, rates: str, storage_url: str = "") -> None:
        """`rates` are such as `1000/second` or `100/second;2000/minute`, or `off`. Raises ConfigurationError."""
        self._rates = _parse(rates)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = SlidingWindowCounterRateLimiter(_storage(storage_url)) if storage_url else None
        self._away_until = 0.0
        self._good: OrderedDict[str, None] = OrderedDict()

    async def take(self, request: Request) -> None:
        """Counts one request. Raises TooManyRequests."""
        if self._rates:
            caller = self._caller(request)
            for rate in self._rates:
                await self._take(rate, caller)

    def judge(self, request: Request, status: int) -> None:
        """Learns from what a request was answered whether its token is good."""
        token = _token(request)
        if not token:
            return
        if status == HTTPStatus.UNAUTHORIZED:
            self._good.pop(token, None)
        elif is_proven(request):
            self._good[token] = None
            self._good.move_to_end(token)
            if len(self._good) > _KNOWN:
                self._good.popitem(last=False)

    def _caller(self, request: Request) -> str:
        token = _token(request)
        if token in self._good:
            return token
        return request.client.host if request.client else ""

    async def _take(self, rate: limits.RateLimitItem, caller: str) -> None:
        if self._shared is not None and time.monotonic() >= self._away_until:
            try:
                async with asyncio.timeout(_STORAGE_SECONDS):
                    return await _hit(self._shared, rate, caller)
            except (ValkeyError, OSError, TimeoutError) as error:
                # Its text may name an address with a password in it.
                _log.warning("rate_limit_storage_away", extra={"error": type(error).__name__})
                self._away_until = time.monotonic() + _AWAY_SECONDS
        return await _hit(self._own, rate, caller)

    async def close(self) -> None:
        """Ends the connections to the storage."""
        storage = self._shared.storage if self._shared else None
        if isinstance(storage, RedisStorage):
            await storage.bridge.storage.aclose()  # type: ignore[attr-defined]


async def _hit(limiter: SlidingWindowCounterRateLimiter, rate: limits.RateLimitItem, caller: str) -> None:
    if not await limiter.hit(rate, caller):
        stats = await limiter.get_window_stats(rate, caller)
        raise TooManyRequests(rate.amount, rate.get_expiry(), max(0.0, stats.reset_time - time.time()))


def _token(request: Request) -> str:
    """What stands for the token of a request where the token itself must not be: its digest. Empty for none."""
    digest: str | None = request.scope.get(_DIGEST)
    if digest is None:
        given = request.headers.get("authorization", "")
        digest = request.scope[_DIGEST] = hashlib.sha256(given.encode()).hexdigest() if given else ""
    return digest


def _parse(rates: str) -> Sequence[limits.RateLimitItem]:
    if rates.strip().lower() == OFF:
        return ()
    try:
        return limits.parse_many(rates)
    except ValueError:
        raise ConfigurationError(
            f"BATON_RATE_LIMIT is {rates!r}: write such as 1000/second or 100/second;2000/minute, or {OFF}"
        ) from None


def _storage(url: str) -> Storage:
    if not url.startswith(_SCHEMES):
        raise ConfigurationError(f"BATON_RATE_LIMIT_STORAGE must begin with one of {', '.join(_SCHEMES)}")
    scheme, _, place = url.partition("://")
    told = f"async+{'redis+unix' if scheme == 'unix' else scheme}://{place}"
    try:
        _ = urlsplit(url).port
        return RedisStorage(
            told,
            implementation="valkey",
            key_prefix="baton:rate",
            socket_connect_timeout=_STORAGE_SECONDS,
            socket_timeout=_STORAGE_SECONDS,
        )
    except (ValueError, ValkeyError):
        raise ConfigurationError("BATON_RATE_LIMIT_STORAGE is no address of a Redis or Valkey server") from None

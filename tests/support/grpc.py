"""Real servers in this process, called over loopback by callers that a test makes up."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import orjson
from grpc.aio import Channel
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey

from services.chassis.auth import ALGORITHM, ISSUER, AccessTokens
from services.chassis.channel import open_channel
from services.chassis.ids import new_id


@asynccontextmanager
async def serve_in_process(server: grpc.aio.Server) -> AsyncIterator[str]:
    """Serves on a socket of its own; the value is the address.

    Not on a port: gRPC shares connections between channels, and a port that the OS gives out again would find the
    broken one of an earlier test.
    """
    with TemporaryDirectory(prefix="baton-") as folder:
        address = f"unix:{folder}/grpc"
        server.add_insecure_port(address)
        await server.start()
        try:
            yield address
        finally:
            await server.stop(None)


class Signer:
    """Signs access tokens for anybody, with a key that services are told to trust."""

    def __init__(self, key: OKPKey) -> None:
        self._key = key

    @classmethod
    def trusted_through(cls, jwks_file: Path) -> "Signer":
        """A new key, whose public half is written to `jwks_file`."""
        key = OKPKey.generate_key("Ed25519", auto_kid=True)
        jwks_file.write_bytes(orjson.dumps(KeySet([key]).as_dict(private=False)))
        return cls(key)

    def token(
        self,
        scopes: Iterable[str],
        *,
        agent_id: str | None = None,
        expires_at: datetime | None = None,
        role: str = "",
        run_id: str = "",
    ) -> str:
        """An access token; by default of an agent of its own without a role, in no run's course, good for a day."""
        claims = {
            "iss": ISSUER,
            "sub": agent_id or new_id(),
            "scopes": sorted(scopes),
            "jti": new_id(),
            "exp": int((expires_at or datetime.now(UTC) + timedelta(days=1)).timestamp()),
            **({"role": role} if role else {}),
            **({"run_id": run_id} if run_id else {}),
        }
        return jwt.encode({"alg": ALGORITHM, "kid": self._key.kid}, claims, self._key, algorithms=[ALGORITHM])


class _Sent(AccessTokens):
    """Sends the token as it is, exchanged or not."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> str:
        return self._token


def channel_of(address: str, token: str | None = None) -> Channel:
    """The channel that Baton's own processes use, for a caller who sends `token`, or none."""
    return open_channel(address, access_tokens=_Sent(token) if token is not None else None)

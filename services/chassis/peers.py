"""The other services that one service calls, all under one name."""

from pathlib import Path

from grpc.aio import Channel

from services.chassis.auth import AccessTokens, TokenExchange
from services.chassis.channel import open_channel
from services.chassis.config import ConfigurationError


class Peers:
    """Channels on which calls carry an access token for the token in `token_file`, exchanged at `auth_address`.

    Raises ConfigurationError without a file, OSError when it cannot be read.
    """

    def __init__(self, token_file: Path | None, auth_address: str) -> None:
        if token_file is None:
            raise ConfigurationError("BATON_SERVICES_TOKEN_FILE is missing: other services are called with its token")
        self._auth = open_channel(auth_address)
        self._tokens = AccessTokens(TokenExchange(self._auth), token_file.read_text().strip())
        self._opened: list[Channel] = [self._auth]

    def channel(self, address: str) -> Channel:
        """A channel to the service at `address`."""
        channel = open_channel(address, access_tokens=self._tokens)
        self._opened.append(channel)
        return channel

    async def close(self) -> None:
        """Closes all channels."""
        for channel in self._opened:
            await channel.close()

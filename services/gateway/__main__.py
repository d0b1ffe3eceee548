"""The gateway process."""

import sys

import uvloop

from services.chassis import telemetry
from services.chassis.auth import TokenExchange
from services.chassis.channel import open_channel
from services.chassis.config import ConfigurationError, load
from services.chassis.server import stop_signal
from services.gateway.app import build_app
from services.gateway.backends import close_channels, open_channels
from services.gateway.config import Settings
from services.gateway.documentation import shipped_comments
from services.gateway.server import serve


async def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT."""
    channels = open_channels(settings.addresses())
    auth = open_channel(settings.auth_address)
    try:
        app = build_app(settings, channels, TokenExchange(auth), shipped_comments())
        await serve(
            app,
            settings.host,
            settings.port,
            shares_port=settings.shares_port,
            until=stop_signal,
            grace_seconds=settings.grace_seconds,
        )
        await app.close()
    finally:
        await close_channels([*channels.values(), auth])


def main() -> None:
    telemetry.configure("gateway", exposes=True)
    try:
        uvloop.run(run(load(Settings)))
    except (ConfigurationError, OSError) as error:
        sys.exit(f"gateway: {error}")
    finally:
        telemetry.shutdown()


if __name__ == "__main__":
    main()

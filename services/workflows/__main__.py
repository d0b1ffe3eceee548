"""`python -m services.workflows` serves."""

import sys

import uvloop

from services.chassis import config, telemetry
from services.chassis.config import ConfigurationError
from services.chassis.server import serve
from services.workflows.config import Settings
from services.workflows.service import build


def main() -> None:
    telemetry.configure("workflows")
    try:
        uvloop.run(run())
    except (ConfigurationError, OSError) as error:
        sys.exit(f"workflows: {error}")
    finally:
        telemetry.shutdown()


async def run() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = config.load(Settings)
    service = build(settings)
    await serve(service.server, settings.listen, ready=service.ready, background=service.background())
    await service.close()


if __name__ == "__main__":
    main()

"""The tasks service as a process: `python -m services.tasks`."""

import logging
import sys

import uvloop

from services.chassis import config, telemetry
from services.chassis.config import ConfigurationError
from services.chassis.server import serve
from services.tasks.config import Settings
from services.tasks.service import build

# It logs where requests go, and what they are answered.
_TALKATIVE = "httpcore2"


def main() -> None:
    telemetry.configure("tasks")
    logging.getLogger(_TALKATIVE).setLevel(logging.WARNING)
    try:
        uvloop.run(run())
    except (ConfigurationError, OSError) as error:
        sys.exit(f"tasks: {error}")
    finally:
        telemetry.shutdown()


async def run() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = config.load(Settings)
    service = build(settings)
    await serve(
        service.server,
        settings.listen,
        ready=service.ready,
        background=service.background(),
        before_stop=service.stop_waiting,
    )
    await service.close()


if __name__ == "__main__":
    main()

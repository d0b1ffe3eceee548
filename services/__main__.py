"""All of Baton on one machine: `python -m services`, or `make run`."""

import asyncio
import sys

from services.chassis import config
from services.chassis.config import ConfigurationError
from services.chassis.errors import ServiceError
from services.supervisor import processes
from services.supervisor.config import Settings


def main() -> None:
    settings = config.load(Settings)
    processes.prepare()
    # Imported only now, at the same time as the process beside this one imports what the children need.
    from services.supervisor.supervision import supervise

    asyncio.run(supervise(settings))


if __name__ == "__main__":
    try:
        main()
    except (ConfigurationError, ServiceError, OSError) as error:
        sys.exit(f"baton: {error}")

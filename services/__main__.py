"""All of Baton on one machine: `python -m services`, or `make run`."""

import asyncio
import sys

from services.chassis import config
from services.chassis.config import ConfigurationError
from services.chassis.errors import ServiceError
from services.supervisor.config import Settings
from services.supervisor.supervision import supervise

if __name__ == "__main__":
    try:
        asyncio.run(supervise(config.load(Settings)))
    except (ConfigurationError, ServiceError, OSError) as error:
        sys.exit(f"baton: {error}")

"""A scheduler in a process of its own: `python -m tests.integration.tasks.scheduler_process <database URL>`."""

import asyncio
import sys
import zoneinfo

from services.chassis import loops
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.background import Scheduler
from services.tasks.service import SCHEMA


async def main(url: str) -> None:
    """Fires until it is killed."""
    zoneinfo.reset_tzpath(())
    scheduler = Scheduler(Database(url, schema=SCHEMA, pool_size=2), Wakeup())
    await loops.forever("scheduler", scheduler.step, timeout=30)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

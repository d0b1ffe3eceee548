"""A dispatcher in a process of its own: `python -m tests.integration.tasks.dispatcher_process <database URL>`."""

import asyncio
import sys

from services.chassis import loops
from services.chassis.database import Database
from services.chassis.wakeup import Wakeup
from services.tasks.delivery_counts import DeliveryCounts
from services.tasks.dispatcher import Dispatcher
from services.tasks.service import SCHEMA


async def main(url: str) -> None:
    """Matches events until it is killed."""
    dispatcher = Dispatcher(Database(url, schema=SCHEMA, pool_size=2), Wakeup(), Wakeup(), DeliveryCounts())
    await loops.forever("dispatcher", dispatcher.step, timeout=30)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

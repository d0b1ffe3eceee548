"""The worker as a process: `python -m services.worker`."""

import gc
import logging
import sys

import uvloop

from services.chassis import config, telemetry
from services.chassis.auth import AccessTokens, TokenExchange
from services.chassis.channel import open_channel
from services.chassis.clock import SystemClock
from services.chassis.config import ConfigurationError
from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.chassis.server import stop_signal
from services.worker.config import Settings
from services.worker.secrets.folder import Secrets
from services.worker.worker import Worker

# These log what servers send, and the addresses they are sent to, which may hold secrets.
_TALKATIVE = {
    "mcp": logging.CRITICAL,
    "client": logging.CRITICAL,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
}


def main() -> None:
    try:
        settings = config.load(Settings)
    except ConfigurationError as error:
        sys.exit(f"worker: {error}")
    secrets = Secrets(settings.secrets_dir)
    telemetry.configure("worker", clean=secrets.clean)
    for name, level in _TALKATIVE.items():
        logging.getLogger(name).setLevel(level)
    try:
        uvloop.run(run(settings, secrets))
    except OSError as error:
        sys.exit(f"worker: {error}")
    finally:
        telemetry.shutdown()


async def run(settings: Settings, secrets: Secrets) -> None:
    """Works until SIGTERM or SIGINT."""
    secrets.look()
    # What is loaded by now stays: looking for garbage in it again and again takes a tenth of a busy worker's time.
    gc.freeze()
    token = settings.token_file.read_text().strip()
    async with open_channel(settings.sessions_address) as exchange:
        access_tokens = AccessTokens(TokenExchange(exchange), token)
        async with (
            open_channel(settings.tasks_address, access_tokens=access_tokens) as tasks,
            open_channel(settings.sessions_address, access_tokens=access_tokens) as sessions,
            open_channel(settings.workflows_address, access_tokens=access_tokens) as workflows,
        ):
            worker = Worker(
                tasks,
                sessions,
                workflows,
                clock=SystemClock(),
                concurrency=settings.concurrency,
                tool_calls=settings.tool_calls,
                role=settings.role,
                grace_seconds=settings.grace_seconds,
                egress=Egress(Guard(allowed.parse(settings.egress_allow))),
                secrets=secrets,
                limits=settings.process_limits,
            )
            await worker.run(stop_signal())


if __name__ == "__main__":
    main()

"""`python -m services.sessions` serves; `python -m services.sessions bootstrap` writes the first tokens."""

import argparse
import sys
from pathlib import Path

import uvloop

from services.chassis import config, telemetry
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.chassis.server import serve
from services.sessions.bootstrap import SERVICES, SYSTEM, WORKER, mint_to_file
from services.sessions.config import DatabaseSettings, Settings
from services.sessions.service import SCHEMA, build


def main() -> None:
    arguments = _parser().parse_args()
    telemetry.configure("sessions")
    try:
        if arguments.command == "bootstrap":
            bootstrap(arguments.admin_token_file, arguments.worker_token_file, arguments.services_token_file)
        else:
            uvloop.run(run())
    except (ConfigurationError, ServiceError, OSError) as error:
        sys.exit(f"sessions: {error}")
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


def bootstrap(admin_token_file: Path | None, worker_token_file: Path | None, services_token_file: Path | None) -> None:
    """Writes a token of each agent that has a file given, unless a good one is there already."""
    settings = config.load(DatabaseSettings)
    database = Database(settings.database_url, schema=SCHEMA, pool_size=1)
    for agent, path in ((SYSTEM, admin_token_file), (WORKER, worker_token_file), (SERVICES, services_token_file)):
        if path is not None:
            mint_to_file(database, agent.name, agent.scopes, path)
    database.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.sessions", description=__doc__)
    first_tokens = parser.add_subparsers(dest="command").add_parser(
        "bootstrap", help="write the first tokens to files (mode 0600) and exit; good ones that are there stay"
    )
    first_tokens.add_argument("--admin-token-file", type=Path, help="for the agent 'system', which may do everything")
    first_tokens.add_argument("--worker-token-file", type=Path, help="for the agent 'worker', which leases runs")
    first_tokens.add_argument(
        "--services-token-file", type=Path, help="for the agent 'services', as which services call each other"
    )
    return parser


if __name__ == "__main__":
    main()

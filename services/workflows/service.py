"""The workflows service, put together."""

from dataclasses import dataclass

import grpc
from baton.workflows.v1 import template_service_pb2, template_service_pb2_grpc

from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database
from services.chassis.policy import policies
from services.chassis.server import create_server
from services.workflows.config import Settings
from services.workflows.models.template import Definition
from services.workflows.operations import template as operations
from services.workflows.servicer.template import TemplateServicer
from services.workflows.shipped import shipped_definitions
from services.workflows.store import template as templates

SCHEMA = "workflows"


@dataclass(frozen=True)
class Service:
    """The server and what it needs to be ready."""

    server: grpc.aio.Server
    database: Database
    shipped: tuple[Definition, ...]

    async def ready(self) -> None:
        """Raises while the database is down or not migrated; stores the shipped templates that are not there."""
        missing = await self.database.read(lambda connection, clock: templates.missing(connection, self.shipped))
        if missing:
            await self.database.transact(
                lambda connection, clock: operations.store_templates(connection, missing, clock=clock)
            )


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service as `settings` say, with the time from `clock` (default: the database's). Needs a running loop.

    The database need not be there yet. Raises ConfigurationError.
    """
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    verifier = Verifier(settings.jwks_file, clock or SystemClock())
    server = create_server(policies([template_service_pb2.DESCRIPTOR]), verifier)
    template_service_pb2_grpc.add_TemplateServiceServicer_to_server(TemplateServicer(database), server)
    return Service(server, database, shipped_definitions())

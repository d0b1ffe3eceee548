"""The sessions service, put together."""

from collections.abc import Coroutine
from dataclasses import dataclass

import grpc
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc
from baton.sessions.v1 import agent_service_pb2, agent_service_pb2_grpc
from sqlalchemy import select

from services.chassis import loops
from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.database import Database
from services.chassis.idempotency import Idempotency
from services.chassis.policy import policies
from services.chassis.server import create_server
from services.sessions.config import Settings
from services.sessions.keys import ensure_keys
from services.sessions.servicer import AgentServicer, AuthServicer
from services.sessions.store import tables

SCHEMA = "sessions"


@dataclass(frozen=True)
class Service:
    """The server and what runs beside it."""

    server: grpc.aio.Server
    database: Database
    idempotency: Idempotency

    async def ready(self) -> None:
        """Raises while the database is down or not migrated."""
        await self.database.read(
            lambda connection, clock: connection.execute(select(tables.agents.c.id).limit(1)).all()
        )

    def background(self) -> list[Coroutine[None, None, None]]:
        """The loops that run as long as the server."""
        return [loops.forever("idempotency", self.idempotency.forget_expired, timeout=30)]


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service as `settings` say, with the time from `clock` (default: the database's). Needs a running loop.

    The database need not be there yet. Raises ConfigurationError.
    """
    signing_key = ensure_keys(settings.signing_key_file, settings.jwks_file)
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    idempotency = Idempotency(database, tables.idempotency_keys, settings.idempotency_ttl_seconds)
    verifier = Verifier(settings.jwks_file, clock or SystemClock())
    server = create_server(policies([auth_service_pb2.DESCRIPTOR, agent_service_pb2.DESCRIPTOR]), verifier)
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(AuthServicer(database, signing_key), server)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(AgentServicer(database, idempotency), server)
    return Service(server, database, idempotency)

"""The workflows service, put together."""

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass

import grpc
from baton.api.v1 import health_service_pb2, inbox_service_pb2, inbox_service_pb2_grpc
from baton.workflows.v1 import (
    handoff_service_pb2,
    handoff_service_pb2_grpc,
    template_service_pb2,
    template_service_pb2_grpc,
    workflow_service_pb2,
    workflow_service_pb2_grpc,
)

from services.chassis import loops
from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.health import add_health
from services.chassis.idempotency import Idempotency
from services.chassis.inbox import InboxServicer
from services.chassis.outbox import AUDIT, EVENT, HANDOFF, REPORT
from services.chassis.paging import Cursors
from services.chassis.peers import Peers
from services.chassis.policy import policies
from services.chassis.relay import Relay, to_inbox
from services.chassis.server import create_server
from services.workflows.config import Settings
from services.workflows.handoff_expiry import HandoffExpiry
from services.workflows.models.template import Definition
from services.workflows.operations import template as operations
from services.workflows.operations.reports import take_reports
from services.workflows.overdue import Overdue
from services.workflows.servicer.handoff import HandoffServicer
from services.workflows.servicer.template import TemplateServicer
from services.workflows.servicer.workflow import WorkflowServicer
from services.workflows.shipped import shipped_definitions
from services.workflows.store import tables
from services.workflows.store import template as templates

SCHEMA = "workflows"


@dataclass(frozen=True)
class Service:
    """The server, and what runs beside it."""

    server: grpc.aio.Server
    database: Database
    idempotency: Idempotency
    shipped: tuple[Definition, ...]
    overdue: Overdue
    handoff_expiry: HandoffExpiry
    relays: Mapping[str, Relay]
    """What other services are told of, by topic; none for those that are not named."""
    peers: Peers | None
    """None when no other service is named."""

    async def ready(self) -> None:
        """Raises while the database is down or not migrated; stores the shipped templates that are not there."""
        missing = await self.database.read(lambda connection, clock: templates.missing(connection, self.shipped))
        if missing:
            await self.database.transact(
                lambda connection, clock: operations.store_templates(connection, missing, clock=clock)
            )

    def background(self) -> list[Coroutine[None, None, None]]:
        """The loops that run as long as the server."""
        return [
            *(loops.forever(topic, relay.step, timeout=30) for topic, relay in self.relays.items()),
            loops.forever("overdue", self.overdue.step, timeout=30),
            loops.forever("handoff-expiry", self.handoff_expiry.step, timeout=30),
            loops.forever("idempotency", self.idempotency.forget_expired, timeout=30),
        ]

    async def close(self) -> None:
        """Closes everything, after the server has stopped."""
        if self.peers:
            await self.peers.close()
        self.database.close()


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service as `settings` say, with the time from `clock` (default: the database's). Needs a running loop.

    The database need not be there yet. Raises ConfigurationError, or OSError when the cursor key cannot be read.
    """
    cursors = Cursors.from_file(settings.cursor_key_file)
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    idempotency = Idempotency(database, tables.idempotency_keys, settings.idempotency_ttl_seconds, tables.outbox)
    verifier = Verifier(settings.jwks_file, clock or SystemClock())
    contract = (
        template_service_pb2.DESCRIPTOR,
        workflow_service_pb2.DESCRIPTOR,
        handoff_service_pb2.DESCRIPTOR,
        inbox_service_pb2.DESCRIPTOR,
        health_service_pb2.DESCRIPTOR,
    )
    server = create_server(policies(contract), verifier)
    shipped = shipped_definitions()
    template_service_pb2_grpc.add_TemplateServiceServicer_to_server(
        TemplateServicer(database, idempotency, cursors, {definition.name for definition in shipped}), server
    )
    workflow_service_pb2_grpc.add_WorkflowServiceServicer_to_server(
        WorkflowServicer(database, idempotency, cursors), server
    )
    handoff_service_pb2_grpc.add_HandoffServiceServicer_to_server(
        HandoffServicer(database, idempotency, cursors), server
    )
    inbox_service_pb2_grpc.add_InboxServiceServicer_to_server(InboxServicer(database, {REPORT: take_reports}), server)
    add_health(server, database)
    peers = _peers(settings)
    return Service(
        server=server,
        database=database,
        idempotency=idempotency,
        shipped=shipped,
        overdue=Overdue(database),
        handoff_expiry=HandoffExpiry(database),
        relays=_relays(settings, database, peers),
        peers=peers,
    )


def _peers(settings: Settings) -> Peers | None:
    if settings.sessions_address:
        return Peers(settings.services_token_file, settings.sessions_address)
    if settings.tasks_address:
        raise ConfigurationError("BATON_SESSIONS_ADDRESS is missing: what calls the tasks service is checked there")
    return None


def _relays(settings: Settings, database: Database, peers: Peers | None) -> dict[str, Relay]:
    if peers is None:
        return {}
    addresses = {
        AUDIT: settings.sessions_address,
        EVENT: settings.tasks_address,
        HANDOFF: settings.tasks_address,
    }
    return {
        topic: Relay(database, tables.outbox, topic, to_inbox(peers.channel(address), SCHEMA))
        for topic, address in addresses.items()
        if address
    }

"""The sessions service, put together."""

from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc
from baton.api.v1 import auth_service_pb2, auth_service_pb2_grpc, inbox_service_pb2, inbox_service_pb2_grpc
from baton.sessions.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    orchestrator_service_pb2,
    orchestrator_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from sqlalchemy import select

from services.chassis import loops
from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.egress import allowed
from services.chassis.egress.guard import Guard
from services.chassis.errors import ServiceError
from services.chassis.idempotency import Idempotency
from services.chassis.inbox import InboxServicer
from services.chassis.outbox import AGENT_WEBHOOK, AUDIT, EVENT
from services.chassis.paging import Cursors
from services.chassis.peers import Peers
from services.chassis.policy import policies
from services.chassis.relay import Relay, to_inbox, to_own
from services.chassis.server import create_server
from services.sessions.config import Settings
from services.sessions.expiry import SessionExpiry
from services.sessions.keys import ensure_audit_key, ensure_keys
from services.sessions.last_used import LastUsed
from services.sessions.operations.audit import take_actions
from services.sessions.pruning import Pruning
from services.sessions.servicer.agent import AgentServicer
from services.sessions.servicer.audit import AuditServicer
from services.sessions.servicer.auth import AuthServicer
from services.sessions.servicer.credential import CredentialServicer
from services.sessions.servicer.orchestrator import OrchestratorServicer
from services.sessions.servicer.session import SessionServicer
from services.sessions.store import tables

SCHEMA = "sessions"
_MAX_RETENTION_DAYS = 36_500


@dataclass(frozen=True)
class Service:
    """The server and what runs beside it."""

    server: grpc.aio.Server
    database: Database
    idempotency: Idempotency
    last_used: LastUsed
    pruning: Pruning
    session_expiry: SessionExpiry
    audit_relay: Relay
    told_relays: Mapping[str, Relay]
    """What the tasks service is told of, by topic; empty when it is not named."""
    peers: Peers | None
    """None when no other service is named."""

    async def ready(self) -> None:
        """Raises while the database is down or not migrated."""
        await self.database.read(
            lambda connection, clock: connection.execute(select(tables.agents.c.id).limit(1)).all()
        )

    def background(self) -> list[Coroutine[None, None, None]]:
        """The loops that run as long as the server."""
        return [
            *(loops.forever(topic, relay.step, timeout=30) for topic, relay in self.told_relays.items()),
            loops.forever("audit", self.audit_relay.step, timeout=30),
            loops.forever("idempotency", self.idempotency.forget_expired, timeout=30),
            loops.forever("tokens-used", self.last_used.write, timeout=30),
            loops.forever("tokens-ended", self.pruning.step, timeout=30),
            loops.forever("session-expiry", self.session_expiry.step, timeout=30),
        ]

    async def close(self) -> None:
        """Writes down what is only noted yet, and closes the database, after the server has stopped."""
        with suppress(ServiceError):  # it is lost, as it would be in a crash
            await self.last_used.write()
        if self.peers:
            await self.peers.close()
        self.database.close()


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service as `settings` say, with the time from `clock` (default: the database's). Needs a running loop.

    The database need not be there yet. Raises ConfigurationError, or OSError when the cursor key cannot be read.
    """
    signing_key = ensure_keys(settings.signing_key_file, settings.jwks_file)
    audit_key = ensure_audit_key(settings.audit_key_file)
    cursors, guard = Cursors.from_file(settings.cursor_key_file), Guard(allowed.parse(settings.egress_allow))
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    idempotency = Idempotency(database, tables.idempotency_keys, settings.idempotency_ttl_seconds, tables.outbox)
    last_used = LastUsed(database)
    contract = (
        auth_service_pb2.DESCRIPTOR,
        agent_service_pb2.DESCRIPTOR,
        credential_service_pb2.DESCRIPTOR,
        orchestrator_service_pb2.DESCRIPTOR,
        audit_service_pb2.DESCRIPTOR,
        session_service_pb2.DESCRIPTOR,
        inbox_service_pb2.DESCRIPTOR,
    )
    server = create_server(policies(contract), Verifier(settings.jwks_file, clock or SystemClock()))
    auth_service_pb2_grpc.add_AuthServiceServicer_to_server(AuthServicer(database, signing_key, last_used), server)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(
        AgentServicer(database, idempotency, cursors, guard), server
    )
    credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(
        CredentialServicer(database, idempotency), server
    )
    orchestrator_service_pb2_grpc.add_OrchestratorServiceServicer_to_server(
        OrchestratorServicer(database, idempotency, guard), server
    )
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
        AuditServicer(database, idempotency, cursors, audit_key), server
    )
    retention = _retention(settings.session_retention_days)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(database, idempotency, cursors, retention), server
    )
    take_audit = partial(take_actions, key=audit_key)
    inbox_service_pb2_grpc.add_InboxServiceServicer_to_server(InboxServicer(database, {AUDIT: take_audit}), server)
    peers, told_relays = None, {}
    if settings.tasks_address:
        peers = Peers(settings.services_token_file, settings.listen)
        tell = to_inbox(peers.channel(settings.tasks_address), SCHEMA)
        told_relays = {topic: Relay(database, tables.outbox, topic, tell) for topic in (AGENT_WEBHOOK, EVENT)}
    return Service(
        server=server,
        database=database,
        idempotency=idempotency,
        last_used=last_used,
        pruning=Pruning(database),
        session_expiry=SessionExpiry(database, retention),
        audit_relay=Relay(database, tables.outbox, AUDIT, to_own(database, take_audit, SCHEMA)),
        told_relays=told_relays,
        peers=peers,
    )


def _retention(days: int) -> timedelta | None:
    if not 0 <= days <= _MAX_RETENTION_DAYS:
        raise ConfigurationError(f"SESSION_RETENTION_DAYS is {days}: use 0 to {_MAX_RETENTION_DAYS}")
    return timedelta(days=days) if days else None

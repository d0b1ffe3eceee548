"""The sessions service, put together."""

from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc
from baton.api.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    health_service_pb2,
    inbox_service_pb2,
    inbox_service_pb2_grpc,
)
from baton.sessions.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    budget_service_pb2,
    budget_service_pb2_grpc,
    chat_service_pb2,
    chat_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    feed_service_pb2,
    feed_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    orchestrator_service_pb2,
    orchestrator_service_pb2_grpc,
    prompt_service_pb2,
    prompt_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
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
from services.chassis.health import add_health
from services.chassis.idempotency import Idempotency
from services.chassis.inbox import InboxServicer
from services.chassis.listener import CONNECTION_SECONDS, Listener
from services.chassis.outbox import AGENT_WEBHOOK, AUDIT, BUDGET, EVENT, USAGE
from services.chassis.paging import Cursors
from services.chassis.peers import Peers
from services.chassis.policy import policies
from services.chassis.relay import Relay, to_inbox, to_own
from services.chassis.server import create_server
from services.chassis.wakeup import Wakeup
from services.sessions.config import Settings
from services.sessions.expiry import SessionExpiry
from services.sessions.keys import ensure_audit_key, ensure_keys
from services.sessions.last_used import LastUsed
from services.sessions.log_retention import MAX_DAYS, LogRetention
from services.sessions.measuring import Measuring
from services.sessions.operations.audit import take_actions
from services.sessions.operations.usage import take_usage
from services.sessions.pruning import Pruning
from services.sessions.servicer.agent import AgentServicer
from services.sessions.servicer.audit import AuditServicer
from services.sessions.servicer.auth import AuthServicer
from services.sessions.servicer.budget import BudgetServicer
from services.sessions.servicer.chat import ChatServicer
from services.sessions.servicer.credential import CredentialServicer
from services.sessions.servicer.feed import FeedServicer
from services.sessions.servicer.log import LogServicer
from services.sessions.servicer.orchestrator import OrchestratorServicer
from services.sessions.servicer.prompt import PromptServicer
from services.sessions.servicer.session import SessionServicer
from services.sessions.servicer.usage import UsageServicer
from services.sessions.store import tables

SCHEMA = "sessions"
_MAX_RETENTION_DAYS = 36_500
# A step of the listener is as long as its connection lasts.
_LISTENING_SECONDS = 2 * CONNECTION_SECONDS


@dataclass(frozen=True)
class Service:
    """The server and what runs beside it."""

    server: grpc.aio.Server
    database: Database
    idempotency: Idempotency
    last_used: LastUsed
    pruning: Pruning
    log_retention: LogRetention
    feed: FeedServicer
    listener: Listener | None
    """None on SQLite, where there are no replicas."""
    session_expiry: SessionExpiry
    measuring: Measuring
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
        listening = [loops.forever("listener", self.listener.step, timeout=_LISTENING_SECONDS)] if self.listener else []
        return [
            *listening,
            *(loops.forever(topic, relay.step, timeout=30) for topic, relay in self.told_relays.items()),
            loops.forever("audit", self.audit_relay.step, timeout=30),
            loops.forever("idempotency", self.idempotency.forget_expired, timeout=30),
            loops.forever("tokens-used", self.last_used.write, timeout=30),
            loops.forever("tokens-ended", self.pruning.step, timeout=30),
            loops.forever("log-retention", self.log_retention.step, timeout=60),
            loops.forever("measuring", self.measuring.step, timeout=30),
            loops.forever("session-expiry", self.session_expiry.step, timeout=30),
        ]

    def stop_waiting(self) -> None:
        """Ends the calls that wait for something to happen; the server is about to stop."""
        self.feed.stop()

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
    _check_retention(settings.log_retention_days)
    signing_key = ensure_keys(settings.signing_key_file, settings.jwks_file)
    audit_key = ensure_audit_key(settings.audit_key_file)
    cursors, guard = Cursors.from_file(settings.cursor_key_file), Guard(allowed.parse(settings.egress_allow))
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    idempotency = Idempotency(database, tables.idempotency_keys, settings.idempotency_ttl_seconds, tables.outbox)
    last_used = LastUsed(database)
    listener = new_listener(settings.database_url) if database.is_postgres else None
    wakeup = listener.wakeup if listener else Wakeup()
    feed = FeedServicer(database, cursors, wakeup)
    contract = (
        auth_service_pb2.DESCRIPTOR,
        agent_service_pb2.DESCRIPTOR,
        credential_service_pb2.DESCRIPTOR,
        orchestrator_service_pb2.DESCRIPTOR,
        audit_service_pb2.DESCRIPTOR,
        prompt_service_pb2.DESCRIPTOR,
        log_service_pb2.DESCRIPTOR,
        chat_service_pb2.DESCRIPTOR,
        feed_service_pb2.DESCRIPTOR,
        session_service_pb2.DESCRIPTOR,
        usage_service_pb2.DESCRIPTOR,
        budget_service_pb2.DESCRIPTOR,
        inbox_service_pb2.DESCRIPTOR,
        health_service_pb2.DESCRIPTOR,
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
    prompt_service_pb2_grpc.add_PromptServiceServicer_to_server(PromptServicer(database, idempotency, cursors), server)
    log_service_pb2_grpc.add_LogServiceServicer_to_server(LogServicer(database, idempotency, cursors, wakeup), server)
    chat_service_pb2_grpc.add_ChatServiceServicer_to_server(
        ChatServicer(database, idempotency, cursors, wakeup), server
    )
    feed_service_pb2_grpc.add_FeedServiceServicer_to_server(feed, server)
    retention = _retention(settings.session_retention_days)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(database, idempotency, cursors, retention), server
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(UsageServicer(database, idempotency, cursors), server)
    budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(BudgetServicer(database, idempotency, cursors), server)
    add_health(server, database)
    take_audit = partial(take_actions, key=audit_key)
    inbox = InboxServicer(database, {AUDIT: take_audit, USAGE: take_usage})
    inbox_service_pb2_grpc.add_InboxServiceServicer_to_server(inbox, server)
    peers, told_relays = None, {}
    if settings.tasks_address:
        peers = Peers(settings.services_token_file, settings.listen)
        tell = to_inbox(peers.channel(settings.tasks_address), SCHEMA)
        told_relays = {topic: Relay(database, tables.outbox, topic, tell) for topic in (AGENT_WEBHOOK, BUDGET, EVENT)}
    return Service(
        server=server,
        database=database,
        idempotency=idempotency,
        last_used=last_used,
        pruning=Pruning(database),
        log_retention=LogRetention(database, settings.log_retention_days),
        feed=feed,
        listener=listener,
        session_expiry=SessionExpiry(database, retention),
        measuring=Measuring(database),
        audit_relay=Relay(database, tables.outbox, AUDIT, to_own(database, take_audit, SCHEMA)),
        told_relays=told_relays,
        peers=peers,
    )


def new_listener(database_url: str) -> Listener:
    """Hears and tells that there is something new in the feed."""
    return Listener(database_url, channel="baton_feed", name="baton-sessions-listener")


def _check_retention(days: int) -> None:
    if not 0 <= days <= MAX_DAYS:
        raise ConfigurationError(
            f"BATON_LOG_RETENTION_DAYS is {days}: it is a number of days, at most {MAX_DAYS}, or 0 to keep everything"
        )


def _retention(days: int) -> timedelta | None:
    if not 0 <= days <= _MAX_RETENTION_DAYS:
        raise ConfigurationError(f"SESSION_RETENTION_DAYS is {days}: use 0 to {_MAX_RETENTION_DAYS}")
    return timedelta(days=days) if days else None

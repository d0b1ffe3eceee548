"""The tasks service, put together."""

import zoneinfo
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass

import grpc
from baton.api.v1 import health_service_pb2, inbox_service_pb2, inbox_service_pb2_grpc
from baton.tasks.v1 import (
    approval_service_pb2,
    approval_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    ledger_service_pb2,
    ledger_service_pb2_grpc,
    probe_service_pb2,
    probe_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    task_service_pb2,
    task_service_pb2_grpc,
    tool_service_pb2,
    tool_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
    work_service_pb2,
    work_service_pb2_grpc,
)
from sqlalchemy import select

from services.chassis import loops
from services.chassis.auth import Verifier
from services.chassis.clock import Clock, SystemClock
from services.chassis.config import ConfigurationError
from services.chassis.database import Database
from services.chassis.egress import allowed
from services.chassis.egress.client import Egress
from services.chassis.egress.guard import Guard
from services.chassis.errors import Unavailable
from services.chassis.health import add_health, look_at_loop
from services.chassis.idempotency import Idempotency
from services.chassis.ids import is_uuid, stored_id
from services.chassis.inbox import InboxServicer
from services.chassis.listener import CONNECTION_SECONDS, Listener
from services.chassis.outbox import AGENT_WEBHOOK, AUDIT, BUDGET, EVENT, HANDOFF, REPORT, USAGE, Message
from services.chassis.paging import Cursors
from services.chassis.peers import Peers
from services.chassis.policy import policies
from services.chassis.relay import Relay, to_inbox
from services.chassis.server import create_server
from services.chassis.wakeup import Wakeup
from services.tasks.attendance import Attendance
from services.tasks.background import Reaper, Scheduler
from services.tasks.config import Settings
from services.tasks.deliverer import Deliverer
from services.tasks.delivery_counts import DeliveryCounts
from services.tasks.dispatcher import Dispatcher
from services.tasks.expiry import Expiry
from services.tasks.housekeeping import MonthMaker, Retention
from services.tasks.measuring import Measuring
from services.tasks.models.schedule import is_timezone
from services.tasks.operations.agent_webhook import take_agent_webhooks
from services.tasks.operations.budget import take_budgets
from services.tasks.operations.handoff import roles_of, take_handoffs
from services.tasks.operations.told_event import take_events
from services.tasks.servicer.approval import ApprovalServicer
from services.tasks.servicer.event import EventServicer
from services.tasks.servicer.file import FileServicer
from services.tasks.servicer.ledger import LedgerServicer
from services.tasks.servicer.probe import ProbeServicer
from services.tasks.servicer.routing import RoutingServicer
from services.tasks.servicer.run import RunServicer
from services.tasks.servicer.task import TaskServicer
from services.tasks.servicer.tool import ToolServicer
from services.tasks.servicer.webhook import WebhookServicer
from services.tasks.servicer.work import WorkServicer
from services.tasks.store.tables import idempotency_keys, outbox, tasks
from services.tasks.stream import Source, StreamConsumer, check_url
from services.tasks.tool_servers_file import ToolServersFile
from services.tasks.webhook_sender import WebhookSender

SCHEMA = "tasks"
MIN_POOL_SIZE = 2
MAX_RETENTION_DAYS = 36_500
MAX_STREAM_KEY = 100
MAX_STREAM_CLAIM_SECONDS = 86_400
# A step of the listener is as long as its connection lasts.
_LISTENING_SECONDS = 2 * CONNECTION_SECONDS


@dataclass(frozen=True)
class Service:
    """What a process serves and runs."""

    server: grpc.aio.Server
    database: Database
    work: WorkServicer
    runs: RunServicer
    idempotency: Idempotency
    scheduler: Scheduler
    reaper: Reaper
    expiry: Expiry
    dispatcher: Dispatcher
    deliverer: Deliverer
    attendance: Attendance
    measuring: Measuring
    listener: Listener | None
    """None on SQLite, which one process has to itself."""
    month_maker: MonthMaker | None
    """None on SQLite, where the history is one table."""
    retention: Retention | None
    """None when everything is kept."""
    stream: StreamConsumer | None
    """None when no stream of events is named."""
    tool_servers_file: ToolServersFile | None
    """None when the operator has no such file."""
    peers: Peers | None
    """None when no other service is named."""
    relays: Mapping[str, Relay]
    """What the sessions service is told of, by topic; empty when it is not named."""

    def background(self) -> Sequence[Coroutine[None, None, None]]:
        """The loops that run beside the server."""
        listening = [loops.forever("listener", self.listener.step, timeout=_LISTENING_SECONDS)] if self.listener else []
        months = [loops.forever("months", self.month_maker.step, timeout=60)] if self.month_maker else []
        retention = [loops.forever("retention", self.retention.step, timeout=3600)] if self.retention else []
        stream = [loops.forever("stream", self.stream.step, timeout=120)] if self.stream else []
        file = self.tool_servers_file
        tool_servers = [loops.forever("tool-servers-file", file.step, timeout=30)] if file else []
        return (
            *(loops.forever(topic, relay.step, timeout=30) for topic, relay in self.relays.items()),
            *stream,
            *tool_servers,
            *listening,
            *months,
            *retention,
            loops.forever("scheduler", self.scheduler.step, timeout=30),
            loops.forever("reaper", self.reaper.step, timeout=30),
            loops.forever("expiry", self.expiry.step, timeout=60),
            loops.forever("dispatcher", self.dispatcher.step, timeout=30),
            loops.forever("webhooks", self.deliverer.step, timeout=30),
            loops.forever("attendance", self.attendance.step, timeout=30),
            loops.forever("measuring", self.measuring.step, timeout=30),
            loops.forever("idempotency", self.idempotency.forget_expired, timeout=30),
        )

    def stop_waiting(self) -> None:
        """Ends the calls that wait for something, so that the server need not wait for them."""
        self.work.stop()
        self.runs.stop()

    async def close(self) -> None:
        """Closes the database, after the server has stopped, once no claim is left to be given back."""
        await self.work.finished()
        await self.deliverer.stop()
        if self.stream:
            await self.stream.close()
        if self.peers:
            await self.peers.close()
        self.database.close()

    async def ready(self) -> None:
        """Raises while the tables cannot be read, or do not say yet what the operator's file says."""
        await self.database.read(lambda connection, clock: connection.execute(select(tasks.c.id).limit(1)).all())
        if self.tool_servers_file is not None and not self.tool_servers_file.synced:
            raise Unavailable("the tool servers of the operator's file are not stored yet")


def new_listener(database_url: str) -> Listener:
    """Hears and tells which roles have work."""
    return Listener(database_url, channel="baton_work", name="baton-tasks-listener")


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service as `settings` say, with the time from `clock` (default: the database's). Needs a running loop.

    The database need not be there yet. Raises ConfigurationError, or OSError when the cursor key, or the file of tool
    servers, cannot be read.
    """
    # The zones of the tzdata package and no others: every replica must agree on them.
    zoneinfo.reset_tzpath(())
    _check(settings)
    source = _source(settings)
    database = Database(settings.database_url, schema=SCHEMA, pool_size=settings.pool_size, clock=clock)
    idempotency = Idempotency(database, idempotency_keys, settings.idempotency_ttl_seconds, outbox)
    cursors = Cursors.from_file(settings.cursor_key_file)
    listener = new_listener(settings.database_url) if database.is_postgres else None
    work_wakeup = listener.wakeup if listener else Wakeup()
    dispatch_wakeup, delivery_counts = Wakeup(), DeliveryCounts()
    attendance = Attendance(database)
    work_servicer = WorkServicer(database, work_wakeup, attendance, dispatch_wakeup, clock or SystemClock())
    contract = (
        task_service_pb2.DESCRIPTOR,
        run_service_pb2.DESCRIPTOR,
        work_service_pb2.DESCRIPTOR,
        tool_service_pb2.DESCRIPTOR,
        ledger_service_pb2.DESCRIPTOR,
        file_service_pb2.DESCRIPTOR,
        approval_service_pb2.DESCRIPTOR,
        event_service_pb2.DESCRIPTOR,
        routing_service_pb2.DESCRIPTOR,
        webhook_service_pb2.DESCRIPTOR,
        probe_service_pb2.DESCRIPTOR,
        inbox_service_pb2.DESCRIPTOR,
        health_service_pb2.DESCRIPTOR,
    )
    server = create_server(policies(contract), Verifier(settings.jwks_file, clock or SystemClock()))
    task_servicer = TaskServicer(database, idempotency, cursors, work_wakeup, settings.default_timezone)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(task_servicer, server)
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(
        RoutingServicer(idempotency, work_wakeup, settings.default_timezone), server
    )
    run_servicer = RunServicer(database, idempotency, cursors, work_wakeup)
    run_service_pb2_grpc.add_RunServiceServicer_to_server(run_servicer, server)
    work_service_pb2_grpc.add_WorkServiceServicer_to_server(work_servicer, server)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(ToolServicer(database, idempotency, cursors), server)
    ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(LedgerServicer(database, idempotency, cursors), server)
    approval_service_pb2_grpc.add_ApprovalServiceServicer_to_server(
        ApprovalServicer(database, idempotency, cursors, work_wakeup), server
    )
    file_service_pb2_grpc.add_FileServiceServicer_to_server(FileServicer(database), server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(
        EventServicer(database, idempotency, cursors, work_wakeup, dispatch_wakeup, delivery_counts), server
    )
    guard = Guard(allowed.parse(settings.egress_allow))
    webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(
        WebhookServicer(database, idempotency, cursors, guard), server
    )
    takers = {
        EVENT: take_events,
        AGENT_WEBHOOK: take_agent_webhooks,
        BUDGET: take_budgets,
        HANDOFF: take_handoffs,
    }

    def wake(messages: Sequence[Message]) -> None:
        # Of no role it would be everybody.
        if roles := roles_of(messages):
            work_wakeup.notify(*roles)

    inbox = InboxServicer(database, takers, wake)
    inbox_service_pb2_grpc.add_InboxServiceServicer_to_server(inbox, server)
    probe_service_pb2_grpc.add_ProbeServiceServicer_to_server(ProbeServicer(database, work_wakeup), server)
    measuring = Measuring(database)
    looks = {
        "queue": measuring.look_at_queue,
        "workers": measuring.look_at_workers,
        "scheduler": look_at_loop("scheduler"),
    }
    add_health(server, database, looks)
    scheduler, reaper = Scheduler(database, work_wakeup, clock), Reaper(database, work_wakeup)
    expiry = Expiry(database, work_wakeup)
    month_maker = MonthMaker(database) if database.is_postgres else None
    retention = Retention(database, settings.retention_days) if settings.retention_days else None
    tool_servers = ToolServersFile(settings.tool_servers_file, database) if settings.tool_servers_file else None
    peers = _peers(settings)
    return Service(
        server=server,
        database=database,
        work=work_servicer,
        runs=run_servicer,
        idempotency=idempotency,
        scheduler=scheduler,
        reaper=reaper,
        expiry=expiry,
        dispatcher=Dispatcher(database, dispatch_wakeup, work_wakeup, delivery_counts),
        deliverer=Deliverer(database, WebhookSender(Egress(guard), clock)),
        attendance=attendance,
        measuring=measuring,
        listener=listener,
        month_maker=month_maker,
        retention=retention,
        stream=StreamConsumer(database, source, work_wakeup, dispatch_wakeup) if source else None,
        tool_servers_file=tool_servers,
        peers=peers,
        relays=_relays(settings, database, peers),
    )


def _peers(settings: Settings) -> Peers | None:
    if settings.sessions_address:
        return Peers(settings.services_token_file, settings.sessions_address)
    if settings.workflows_address:
        raise ConfigurationError("BATON_SESSIONS_ADDRESS is missing: what calls other services is checked there")
    return None


def _relays(settings: Settings, database: Database, peers: Peers | None) -> dict[str, Relay]:
    if peers is None:
        return {}
    addresses = {
        AUDIT: settings.sessions_address,
        USAGE: settings.sessions_address,
        REPORT: settings.workflows_address,
    }
    return {
        topic: Relay(database, outbox, topic, to_inbox(peers.channel(address), SCHEMA))
        for topic, address in addresses.items()
        if address
    }


def _source(settings: Settings) -> Source | None:
    """The stream to consume, if there is one. Raises ConfigurationError for one that cannot be consumed."""
    if not settings.event_stream_url:
        return None
    check_url(settings.event_stream_url)
    if not settings.event_stream_agent or not is_uuid(settings.event_stream_agent):
        raise ConfigurationError(
            f"BATON_EVENT_STREAM_AGENT is {settings.event_stream_agent or ''!r}: with EVENT_STREAM_URL it is the id of "
            "the agent who publishes what the stream brings, a UUID"
        )
    if len(settings.event_stream_key) > MAX_STREAM_KEY:
        raise ConfigurationError(
            f"BATON_EVENT_STREAM_KEY has {len(settings.event_stream_key)} characters, at most {MAX_STREAM_KEY}"
        )
    if not 1 <= settings.event_stream_claim_seconds <= MAX_STREAM_CLAIM_SECONDS:
        raise ConfigurationError(
            f"BATON_EVENT_STREAM_CLAIM_SECONDS is {settings.event_stream_claim_seconds:g}: it is a number of seconds, "
            f"1 to {MAX_STREAM_CLAIM_SECONDS}"
        )
    return Source(
        settings.event_stream_url,
        settings.event_stream_key,
        settings.event_stream_group,
        agent_id=stored_id(settings.event_stream_agent),
        claim_after=settings.event_stream_claim_seconds,
    )


def _check(settings: Settings) -> None:
    """Raises ConfigurationError for what would otherwise fail every caller."""
    if not is_timezone(settings.default_timezone):
        raise ConfigurationError(
            f"BATON_DEFAULT_TIMEZONE is {settings.default_timezone!r}, which is not an IANA timezone: "
            "use a name such as UTC or Europe/Chisinau"
        )
    if not 0 <= settings.retention_days <= MAX_RETENTION_DAYS:
        raise ConfigurationError(
            f"BATON_RETENTION_DAYS is {settings.retention_days}: it is a number of days, at most "
            f"{MAX_RETENTION_DAYS}, or 0 to keep everything"
        )
    if settings.pool_size < MIN_POOL_SIZE:
        raise ConfigurationError(
            f"BATON_DATABASE_POOL_SIZE is {settings.pool_size}: at least {MIN_POOL_SIZE} are needed, "
            "for an export keeps one connection to itself"
        )

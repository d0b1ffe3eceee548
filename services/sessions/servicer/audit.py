"""AuditService."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from baton.sessions.v1 import audit_service_pb2 as pb
from baton.sessions.v1 import audit_service_pb2_grpc as rpc
from google.api import httpbody_pb2
from grpc.aio import ServicerContext
from sqlalchemy import Connection

from services.chassis import call
from services.chassis.clock import Clock
from services.chassis.csv_rows import csv_chunks
from services.chassis.database import Database
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.idempotency import Idempotency
from services.chassis.paging import Cursors, page_limit
from services.sessions.convert import audit as convert
from services.sessions.models.audit import Fault, Head
from services.sessions.operations import audit as operations
from services.sessions.store import audit as store

_Context = ServicerContext[Any, Any]
_CSV = "text/csv; charset=utf-8"
_SHOWN_FAULTS = 100
# What is left of the call's time for the answer, and how long one may take that has no deadline.
_ANSWER_SECONDS, _LONGEST_SECONDS = 2.0, 30.0


class AuditServicer(rpc.AuditServiceServicer):
    """Who did what. `key` seals the entries."""

    def __init__(self, database: Database, idempotency: Idempotency, cursors: Cursors, key: bytes) -> None:
        self._database = database
        self._idempotency = idempotency
        self._cursors = cursors
        self._key = key

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: _Context
    ) -> pb.ListAuditEntriesResponse:
        position, limit, wanted = self._cursors.decode(request), page_limit(request), convert.audit_filter(request)
        before = int(position[0]) if position else None
        entries = await self._database.read(
            lambda connection, clock: store.list_entries(connection, wanted, limit=limit + 1, before_sequence=before)
        )
        items, cursor = self._cursors.page(request, entries, convert.entry_message, lambda entry: entry.sequence)
        return pb.ListAuditEntriesResponse(items=items, next_cursor=cursor, has_more=cursor is not None)

    async def ExportAuditEntries(
        self, request: pb.ExportAuditEntriesRequest, context: _Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        wanted, limit = convert.audit_filter(request), request.limit if request.HasField("limit") else None

        def export(connection: Connection, clock: Clock) -> Iterator[bytes]:
            return csv_chunks(connection, store.exported(wanted, limit))

        async for chunk in self._database.stream(export):
            yield httpbody_pb2.HttpBody(content_type=_CSV, data=chunk)

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: _Context) -> pb.VerifyAuditResponse:
        known = convert.known_head(request)
        if (known is None) != (request.known_sequence == 0):
            raise InvalidArgument.of([Violation("known_hash", "goes with known_sequence: give both or none")])
        place = await self._database.read(lambda connection, clock: operations.head_at(connection, request.after))
        found = [] if known is None else await self._known_faults(known)
        checked, complete = 0, False
        until = time.monotonic() + call.seconds_left(_LONGEST_SECONDS) - _ANSWER_SECONDS
        while not complete and time.monotonic() < until:
            look = await self._database.read(
                lambda connection, clock: operations.check_next(connection, place, self._key)  # noqa: B023
            )
            found += look.faults
            checked, place, complete = checked + look.count, look.verified, look.complete
        return pb.VerifyAuditResponse(
            valid=not found,
            complete=complete,
            checked=checked,
            verified_to=place.sequence,
            last_hash=place.hash,
            faults=[convert.fault_message(fault) for fault in found[:_SHOWN_FAULTS]],
            fault_count=len(found),
        )

    async def _known_faults(self, known: Head) -> list[Fault]:
        fault = await self._database.read(lambda connection, clock: operations.check_known(connection, known))
        return [fault] if fault else []

    async def IngestAudit(self, request: pb.IngestAuditRequest, context: _Context) -> pb.IngestAuditResponse:
        told, teller, key = convert.external(request), call.caller().agent_id, request.request_id

        def accept(connection: Connection, clock: Clock) -> pb.IngestAuditResponse:
            entry_id = operations.ingest(connection, clock, told, teller=teller, request_id=key)
            return pb.IngestAuditResponse(status="accepted", id=entry_id)

        return await self._idempotency.once(request, pb.IngestAuditResponse, accept)

"""The sessions service in the test's own process."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from baton.api.v1.auth_service_pb2 import ExchangeTokenRequest
from baton.api.v1.auth_service_pb2_grpc import AuthServiceStub
from baton.sessions.v1.agent_pb2 import Agent
from baton.sessions.v1.agent_service_pb2 import CreateAgentRequest, CreateTokenRequest, CreateTokenResponse
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub
from baton.sessions.v1.budget_service_pb2_grpc import BudgetServiceStub
from baton.sessions.v1.chat_service_pb2_grpc import ChatServiceStub
from baton.sessions.v1.credential_service_pb2_grpc import CredentialServiceStub
from baton.sessions.v1.feed_service_pb2_grpc import FeedServiceStub
from baton.sessions.v1.log_service_pb2_grpc import LogServiceStub
from baton.sessions.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from baton.sessions.v1.prompt_service_pb2_grpc import PromptServiceStub
from baton.sessions.v1.session_service_pb2_grpc import SessionServiceStub
from baton.sessions.v1.usage_service_pb2_grpc import UsageServiceStub
from grpc.aio import Channel
from sqlalchemy import Table, func, select

from services.chassis.auth import Verifier
from services.chassis.call import Caller
from services.chassis.database import Database
from services.chassis.errors import Unauthenticated
from services.chassis.ids import new_id
from services.sessions.config import Settings
from services.sessions.service import Service
from services.sessions.store import tables
from tests.support.clock import ManualClock
from tests.support.grpc import Signer, channel_of


@dataclass
class Sessions:
    """A running service and what a test needs around it."""

    settings: Settings
    service: Service
    address: str
    clock: ManualClock
    signer: Signer
    channels: list[Channel] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return self.service.database

    def channel(self, token: str | None = None) -> Channel:
        channel = channel_of(self.address, token)
        self.channels.append(channel)
        return channel

    def _channel_of(self, scopes: Iterable[str], agent_id: str | None) -> Channel:
        expires_at = self.clock.now() + timedelta(days=1)
        return self.channel(self.signer.token(scopes, agent_id=agent_id, expires_at=expires_at))

    def caller(self, scopes: Iterable[str], agent_id: str | None = None) -> AgentServiceStub:
        """Somebody who holds `scopes` and calls the service."""
        return AgentServiceStub(self._channel_of(scopes, agent_id))

    def orchestration(self, scopes: Iterable[str], agent_id: str | None = None) -> OrchestratorServiceStub:
        return OrchestratorServiceStub(self._channel_of(scopes, agent_id))

    def credentials(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> CredentialServiceStub:
        return CredentialServiceStub(self._channel_of(scopes, agent_id))

    def logs(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> LogServiceStub:
        return LogServiceStub(self._channel_of(scopes, agent_id))

    def prompts(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> PromptServiceStub:
        return PromptServiceStub(self._channel_of(scopes, agent_id))

    def chat(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> ChatServiceStub:
        return ChatServiceStub(self._channel_of(scopes, agent_id))

    def feed(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> FeedServiceStub:
        return FeedServiceStub(self._channel_of(scopes, agent_id))

    def usage(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> UsageServiceStub:
        return UsageServiceStub(self._channel_of(scopes, agent_id))

    def budgets(self, scopes: Iterable[str] = ("admin",), agent_id: str | None = None) -> BudgetServiceStub:
        return BudgetServiceStub(self._channel_of(scopes, agent_id))

    def lifecycle(self, agent_id: str | None = None, *scopes: str) -> SessionServiceStub:
        """Somebody who, by default, reads and writes sessions; no administrator."""
        held = scopes or ("sessions:read", "sessions:write")
        # Some sessions last longer than a token of a day.
        expires_at = self.clock.now() + timedelta(days=4000)
        return SessionServiceStub(self.channel(self.signer.token(held, agent_id=agent_id, expires_at=expires_at)))

    def anybody(self) -> CredentialServiceStub:
        """Somebody who sends no token."""
        return CredentialServiceStub(self.channel())

    def auth(self) -> AuthServiceStub:
        return AuthServiceStub(self.channel())

    async def agent(self, *scopes: str, **fields: Any) -> Agent:
        """A new agent; by default it may read tasks and has a name of its own."""
        request = CreateAgentRequest(**{"name": f"agent {new_id()}", "scopes": scopes or ["tasks:read"]} | fields)
        return (await self.caller(["admin"]).CreateAgent(request)).agent

    async def minted(self, agent_id: str, **fields: Any) -> CreateTokenResponse:
        return await self.caller(["admin"]).CreateToken(CreateTokenRequest(agent_id=agent_id, **fields))

    async def exchanged(self, token: str) -> Caller:
        """Who a token stands for. Raises Unauthenticated."""
        answer = await self.auth().ExchangeToken(ExchangeTokenRequest(token=token))
        return Verifier(self.settings.jwks_file, self.clock).verify(answer.access_token)[0]

    async def opens(self, token: str) -> bool:
        """Whether a token can be exchanged."""
        try:
            await self.exchanged(token)
        except Unauthenticated:
            return False
        return True

    async def audited(self) -> list[dict[str, Any]]:
        """What the audit was told, oldest first."""
        query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == "audit").order_by(tables.outbox.c.id)
        return await self.database.read(lambda connection, clock: list(connection.execute(query).scalars()))

    async def count(self, table: Table) -> int:
        query = select(func.count()).select_from(table)
        return await self.database.read(lambda connection, clock: connection.execute(query).scalar_one())

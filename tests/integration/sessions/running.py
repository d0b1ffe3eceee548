"""The sessions service in the test's own process."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from baton.api.v1.auth_service_pb2_grpc import AuthServiceStub
from baton.sessions.v1.agent_service_pb2_grpc import AgentServiceStub
from grpc.aio import Channel

from services.chassis.database import Database
from services.sessions.config import Settings
from services.sessions.service import Service
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

    def caller(self, scopes: Iterable[str], agent_id: str | None = None) -> AgentServiceStub:
        """Somebody who holds `scopes` and calls the service."""
        return AgentServiceStub(self.channel(self.signer.token(scopes, agent_id=agent_id)))

    def auth(self) -> AuthServiceStub:
        return AuthServiceStub(self.channel())

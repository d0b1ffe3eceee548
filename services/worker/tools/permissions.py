"""Whether the owner of a run may use a tool server, by what the owner holds at the moment of the call."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from baton.sessions.v1 import agent_service_pb2, agent_service_pb2_grpc

from services.chassis.errors import InvalidArgument, NotFound, ServiceError
from services.worker.failures import InputNotValid, InternalFault

KEEP_SECONDS = 5.0
"""How long an answer is believed, counted from when it was asked for."""
_ANSWER_SECONDS = 5.0
_ADMIN = "admin"
_MANY = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    asked_at: float
    scopes: "asyncio.Task[frozenset[str] | None]"
    """None: there is no such agent, or it is archived."""


class Permissions:
    """Asks the sessions service what agents hold."""

    def __init__(self, stub: agent_service_pb2_grpc.AgentServiceStub, *, keep_seconds: float = KEEP_SECONDS) -> None:
        self._stub = stub
        self._keep_seconds = keep_seconds
        self._known: dict[str, _Known] = {}

    async def require(self, owner: str, scopes: Iterable[str], server: str) -> None:
        """Returns when the agent `owner` holds all of `scopes`, which `server` asks for.

        Raises InputNotValid, which names the scope and the agent, and InternalFault when nobody can tell.
        """
        held = await self._held(owner)
        if held is None:
            raise InputNotValid(
                f"there is no agent {owner}, the task's owner, to hold what tool server {server} needs, "
                "or it is archived"
            )
        missing = [] if _ADMIN in held else sorted(set(scopes) - held)
        if missing:
            names = ", ".join(missing)
            raise InputNotValid(f"tool server {server} needs {names}, which the task's owner, agent {owner}, lacks")

    async def _held(self, agent_id: str) -> frozenset[str] | None:
        """What an agent holds; those who ask at the same time share the answer."""
        now = asyncio.get_running_loop().time()
        known = self._known.get(agent_id)
        if known is None or now >= known.asked_at + self._keep_seconds:
            self._forget_old(now)
            self._known[agent_id] = known = _Known(now, asyncio.create_task(self._ask(agent_id)))
            # All who asked may have given up: read it, so that it is not reported as forgotten.
            known.scopes.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            # Shielded: one who gives up must not take the answer from the others.
            return await asyncio.shield(known.scopes)
        except ServiceError as error:
            _log.warning("agent_not_looked_up", extra={"agent_id": agent_id, "reason": error.reason})
            if self._known.get(agent_id) is known:
                del self._known[agent_id]
            raise InternalFault(f"what agent {agent_id} may use cannot be looked up right now") from None

    async def _ask(self, agent_id: str) -> frozenset[str] | None:
        request = agent_service_pb2.GetAgentRequest(agent_id=agent_id)
        try:
            response = await self._stub.GetAgent(request, timeout=_ANSWER_SECONDS)
        except (NotFound, InvalidArgument):
            return None
        return None if response.agent.archived else frozenset(response.agent.scopes)

    def _forget_old(self, now: float) -> None:
        if len(self._known) >= _MANY:
            oldest = now - self._keep_seconds
            self._known = {agent: known for agent, known in self._known.items() if known.asked_at > oldest}

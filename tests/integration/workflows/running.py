"""The workflows service in the test's own process."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from baton.workflows.v1.workflow_pb2 import Workflow, WorkflowEvent
from baton.workflows.v1.workflow_service_pb2 import (
    AdvanceWorkflowRequest,
    AdvanceWorkflowResponse,
    GetWorkflowRequest,
    ListWorkflowEventsRequest,
    StartWorkflowRequest,
)
from baton.workflows.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from grpc.aio import Channel
from sqlalchemy import Table, func, select

from services.chassis.ids import new_id
from services.chassis.structs import to_struct
from services.workflows.service import Service
from services.workflows.store import tables
from tests.support.clock import ManualClock
from tests.support.grpc import Signer, channel_of

WAY = (
    ("discovery", "q_assistant"), ("planning", "q_assistant"), ("handoff_to_coder", "q_assistant"),
    ("implementation", "code_writer"), ("handoff_to_tester", "code_writer"), ("testing", "test_auditor"),
    ("handoff_to_verifier", "test_auditor"), ("verification", "verification_overseer"),
    ("handoff_to_releaser", "verification_overseer"), ("deployment", "release_manager"),
)  # fmt: skip
"""The states of `build` from the first to the last, and who owns each."""


@dataclass
class Workflows:
    """A running service and what a test needs around it."""

    service: Service
    address: str
    signer: Signer
    clock: ManualClock
    channels: list[Channel] = field(default_factory=list)

    def caller(
        self, role: str = "", *, scopes: Iterable[str] = ("workflows:read", "workflows:write"), agent_id: str = ""
    ) -> WorkflowServiceStub:
        """Somebody who works in a role; no administrator."""
        expires_at = self.clock.now() + timedelta(days=400)
        token = self.signer.token(scopes, role=role, agent_id=agent_id or new_id(), expires_at=expires_at)
        channel = channel_of(self.address, token)
        self.channels.append(channel)
        return WorkflowServiceStub(channel)

    @property
    def admin(self) -> WorkflowServiceStub:
        return self.caller(scopes=["admin"])

    async def start(self, **fields: Any) -> str:
        """Starts a workflow of `build`, unless `fields` say more; answers its id."""
        await self.service.ready()
        request = StartWorkflowRequest(**{"project_id": "shop", "build_id": f"build {new_id()}"} | fields)
        return (await self.admin.StartWorkflow(request)).workflow_id

    async def advance(
        self, workflow_id: str, state: str, role: str, next_state: str = "", result: Any = None, **fields: Any
    ) -> AdvanceWorkflowResponse:
        """Somebody of the role says that a state is done."""
        request = AdvanceWorkflowRequest(
            workflow_id=workflow_id,
            role=role,
            completed_state=state,
            next_state=next_state,
            phase_result=to_struct(result or {}),
            **fields,
        )
        return await self.caller(role).AdvanceWorkflow(request)

    async def go_to(self, workflow_id: str, state: str) -> None:
        """Goes forward, from the first state to this one."""
        for one, role in WAY:
            if one == state:
                return
            await self.advance(workflow_id, one, role, result={"from": one})

    async def read(self, workflow_id: str) -> Workflow:
        return (await self.admin.GetWorkflow(GetWorkflowRequest(workflow_id=workflow_id))).workflow

    async def events(self, workflow_id: str) -> list[WorkflowEvent]:
        """Oldest first."""
        request = ListWorkflowEventsRequest(workflow_id=workflow_id, limit=200)
        return list(reversed((await self.admin.ListWorkflowEvents(request)).items))

    async def told(self, topic: str) -> list[dict[str, Any]]:
        """What the outbox holds, oldest first."""
        query = select(tables.outbox.c.payload).where(tables.outbox.c.topic == topic).order_by(tables.outbox.c.id)
        return await self.service.database.read(lambda connection, clock: list(connection.execute(query).scalars()))

    async def count(self, table: Table) -> int:
        query = select(func.count()).select_from(table)
        return await self.service.database.read(lambda connection, clock: connection.execute(query).scalar_one())

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()

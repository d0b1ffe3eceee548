"""Tasks and runs that are stuck, and somebody who does over REST what `explain` says."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson
from baton.tasks.v1 import task_pb2
from sqlalchemy import update

from services.chassis.auth import TokenExchange
from services.gateway.app import build_app
from services.gateway.backends import close_channels, open_channels
from services.gateway.config import Settings
from services.tasks.store import tables
from tests.integration.tasks.lifecycle import at
from tests.integration.tasks.running import END_OF_TIME, EVERYTHING, Tasks

DAILY = {"schedule_kind": task_pb2.SCHEDULE_KIND_CRON, "schedule_expr": "0 9 * * *"}
_ACTION = re.compile(r"(?:.+: )?(?P<verb>GET|POST|PUT|PATCH|DELETE) (?P<path>/\S+)(?: with (?P<body>.+))?")
_PACKAGE = "baton.tasks.v1"
_WHO_MAY_ALL = (*EVERYTHING, "approvals:decide", "runs:report", "admin")


async def abolish_zone(tasks: Tasks, task_id: str) -> None:
    """Leaves a task in a timezone that no longer exists."""
    statement = update(tables.tasks).where(tables.tasks.c.id == task_id).values(timezone="Europe/Atlantis")
    await tasks.database.transact(lambda connection, clock: connection.execute(statement))


async def miss(tasks: Tasks, task: task_pb2.Task) -> None:
    """Lets the next time of a task pass, and be noticed two hours late."""
    tasks.clock.advance(seconds=(at(task.next_fire_at) - tasks.clock.now()).total_seconds() + 7200)
    await tasks.service.scheduler.step()


def is_rest(action: str) -> bool:
    """Whether an action is a call of the API."""
    return _ACTION.fullmatch(action) is not None


@dataclass(frozen=True)
class Somebody:
    """Who reads explanations and does what they say, through the gateway; not the owner of anything, but an admin."""

    client: httpx2.AsyncClient

    async def blockers(self, path: str) -> list[dict[str, Any]]:
        """What is in the way of `/tasks/{id}` or `/runs/{id}`."""
        answer = await self.client.get(f"{path}/explain")
        assert answer.status_code == 200, answer.text
        blockers: list[dict[str, Any]] = answer.json()["blockers"]
        return blockers

    async def do(self, action: str, choice: dict[str, Any]) -> Any:
        """Does what an action says and nothing else; `choice` is what it leaves open, such as which schedule."""
        call = _ACTION.fullmatch(action)
        assert call is not None, f"{action!r} is no call"
        exact = (call["body"] or "").startswith("{")
        assert not (exact and choice), "the action says it all"
        body = orjson.loads(call["body"]) if exact else choice
        answer = await self.client.request(call["verb"], call["path"], json=body)
        assert answer.is_success, f"{action}: {answer.status_code} {answer.text}"
        return answer.json()


@asynccontextmanager
async def somebody(tasks: Tasks) -> AsyncIterator[Somebody]:
    """Opens a gateway in front of the service."""
    settings = Settings(backends=f"{_PACKAGE}={tasks.address}", auth_address=tasks.address)
    channels = open_channels(settings.addresses())
    # Nothing is exchanged: the token is signed already.
    app = build_app(settings, channels, TokenExchange(channels[_PACKAGE]), {})
    headers = {"Authorization": f"Bearer {tasks.signer.token(_WHO_MAY_ALL, expires_at=END_OF_TIME)}"}
    try:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            yield Somebody(client)
    finally:
        await close_channels(channels.values())

"""Hints between the replicas of the tasks service, over PostgreSQL's LISTEN and NOTIFY.

A run that one replica queues is taken at once by a worker that waits at another. Hints may get lost: everybody looks
by themselves, too. They travel on a connection of their own, so that no transaction pays for them.
"""

import asyncio
import time
from typing import Any

import orjson
import psycopg
from sqlalchemy import make_url

from services.chassis.errors import Unavailable
from services.tasks.wakeup import Wakeup

_CHANNEL = "baton_work"
# A notification has less than 8000 bytes, and a role, as JSON, up to 302. A hint for more may as well be one for all.
_MAX_ROLES = 20
# Between two notifications: what comes meanwhile becomes one.
_REST_SECONDS = 0.005
CONNECTION_SECONDS = 3600.0
_IDLE_SECONDS = 60.0
_CONNECT: dict[str, Any] = {"connect_timeout": 3, "keepalives_idle": 30, "application_name": "baton-tasks-listener"}


class Listener:
    """Tells other processes which roles have work, and wakes those who wait here when others tell."""

    def __init__(self, database_url: str) -> None:
        self._url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self.wakeup = Wakeup(self._tell)
        self._untold: set[str] = set()
        self._all_untold = False
        self._stirred = asyncio.Event()

    async def step(self) -> float:
        """Listens and tells for an hour on one connection; raises Unavailable when it breaks."""
        try:
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **_CONNECT)
            async with connection:
                await self._exchange(connection, until=time.monotonic() + CONNECTION_SECONDS)
        except psycopg.Error as error:
            raise Unavailable("hints of other replicas cannot be heard", reason="LISTENER_DISCONNECTED") from error
        return 0.0

    def _tell(self, roles: frozenset[str] | None) -> None:
        if roles is not None:
            self._untold |= roles
        if roles is None or len(self._untold) > _MAX_ROLES:
            self._untold, self._all_untold = set(), True
        self._stirred.set()

    async def _exchange(self, connection: psycopg.AsyncConnection, until: float) -> None:
        await connection.execute(f"LISTEN {_CHANNEL}")
        # What was told while nobody listened is unknown.
        self.wakeup.wake()
        while time.monotonic() < until:
            await self._stir(connection)
            if hint := self._take_hint():
                await connection.execute("SELECT pg_notify(%s, %s)", [_CHANNEL, hint])
            async for heard in connection.notifies(timeout=0):
                if heard.pid != connection.info.backend_pid:
                    self._hear(heard.payload)
            await asyncio.sleep(_REST_SECONDS)

    async def _stir(self, connection: psycopg.AsyncConnection) -> None:
        """Waits until there is something to hear, or to tell."""
        loop, socket = asyncio.get_running_loop(), connection.fileno()
        # Anew each time: psycopg watches the same socket whenever it works, and then no more.
        loop.add_reader(socket, self._stirred.set)
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(socket)
            self._stirred.clear()

    def _take_hint(self) -> str | None:
        """What there is to tell: a JSON list of roles, `null` for all of them."""
        roles, everybody = self._untold, self._all_untold
        self._untold, self._all_untold = set(), False
        if everybody:
            return "null"
        return orjson.dumps(sorted(roles)).decode() if roles else None

    def _hear(self, hint: str) -> None:
        self.wakeup.wake(*(orjson.loads(hint) or ()))

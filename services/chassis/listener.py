"""Hints between the replicas of a service, over PostgreSQL's LISTEN and NOTIFY.

What one replica changes is seen at once by those who wait at another. Hints may get lost: everybody looks
by themselves, too. They travel on a connection of their own, so that no transaction pays for them.
"""

import asyncio
import time
from typing import Any

import orjson
import psycopg
from sqlalchemy import make_url

from services.chassis.errors import Unavailable
from services.chassis.wakeup import Wakeup

# A notification has less than 8000 bytes, and a topic, as JSON, up to 302. A hint for more may as well be one for all.
_MAX_TOPICS = 20
# Between two notifications: what comes meanwhile becomes one.
_REST_SECONDS = 0.005
CONNECTION_SECONDS = 3600.0
_IDLE_SECONDS = 60.0
_CONNECT: dict[str, Any] = {"connect_timeout": 3, "keepalives_idle": 30}


class Listener:
    """Tells other processes of what there is news, and wakes those who wait here when others tell.

    `channel` is theirs alone in the database; `name` is how the server calls the connection.
    """

    def __init__(self, database_url: str, *, channel: str, name: str) -> None:
        self._url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._channel = channel
        self._options = _CONNECT | {"application_name": name}
        self.wakeup = Wakeup(self._tell)
        self._untold: set[str] = set()
        self._all_untold = False
        self._stirred = asyncio.Event()

    async def step(self) -> float:
        """Listens and tells for an hour on one connection; raises Unavailable when it breaks."""
        try:
            connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, **self._options)
            async with connection:
                await self._exchange(connection, until=time.monotonic() + CONNECTION_SECONDS)
        except psycopg.Error as error:
            raise Unavailable("hints of other replicas cannot be heard", reason="LISTENER_DISCONNECTED") from error
        return 0.0

    def _tell(self, topics: frozenset[str] | None) -> None:
        if topics is not None:
            self._untold |= topics
        if topics is None or len(self._untold) > _MAX_TOPICS:
            self._untold, self._all_untold = set(), True
        self._stirred.set()

    async def _exchange(self, connection: psycopg.AsyncConnection, until: float) -> None:
        await connection.execute(f"LISTEN {self._channel}")
        # What was told while nobody listened is unknown.
        self.wakeup.wake()
        while time.monotonic() < until:
            await self._stir(connection)
            if hint := self._take_hint():
                await connection.execute("SELECT pg_notify(%s, %s)", [self._channel, hint])
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
        """What there is to tell: a JSON list of topics, `null` for all of them."""
        topics, everybody = self._untold, self._all_untold
        self._untold, self._all_untold = set(), False
        if everybody:
            return "null"
        return orjson.dumps(sorted(topics)).decode() if topics else None

    def _hear(self, hint: str) -> None:
        self.wakeup.wake(*(orjson.loads(hint) or ()))

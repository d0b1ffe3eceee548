"""The tasks service is killed over and over while it publishes a stream: no message is lost, and none counts twice."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, union_all

from migrations.logins import service_url
from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.store import tables
from tests.chaos.conftest import Victim, started
from tests.support import databases, replicas
from tests.support.valkey import Stream, message, stream
from tests.support.waiting import wait_until

_MESSAGES, _ROUNDS, _CUT_SHORT = 2000, 5, 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", databases.ENGINES)
def test_every_message_is_one_event_and_one_run(engine: str, tmp_path: Path) -> None:
    with stream(tmp_path / "valkey") as server:
        settings = {
            "EVENT_STREAM_URL": server.url,
            "BATON_EVENT_STREAM_AGENT": new_id(),
            "BATON_EVENT_STREAM_CLAIM_SECONDS": "2",
        }
        with started(engine, tmp_path, **settings) as victim:
            victim.create("Counts orders", schedule_kind="event", schedule_expr="order.created")
            cut_short = sum(_feed_and_kill(victim, server, number) for number in range(_ROUNDS))
            assert cut_short >= _CUT_SHORT, "it was killed with messages in its hands"
            if victim.postgres is not None:
                with replicas.tasks_service(victim.baton, victim.database_url, **settings):
                    _wait_for_all(server)
            else:
                _wait_for_all(server)
            database = Database(_tables_of(victim), schema="tasks", pool_size=1)
            found = database.run(_numbers_and_runs)
            database.close()
    assert sorted(number for number, _ in found) == list(range(_MESSAGES))
    assert Counter(runs for _, runs in found) == {1: _MESSAGES}


def _feed_and_kill(victim: Victim, server: Stream, turn: int) -> bool:
    """Feeds a share of the messages and kills the service once it holds some; answers whether it then still did."""
    share = _MESSAGES // _ROUNDS
    server.add(*map(message, range(turn * share, (turn + 1) * share)))
    wait_until(lambda: "tasks" in victim.baton.children())
    wait_until(lambda: _has_group(server) and server.pending() and server.unread())
    killed = victim.baton.children()["tasks"]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: victim.baton.children().get("tasks", killed) != killed)
    return bool(server.pending())


def _has_group(server: Stream) -> bool:
    with server.client() as client:
        return bool(client.xinfo_groups("events"))


def _wait_for_all(server: Stream) -> None:
    wait_until(lambda: not server.unread() and not server.pending(), timeout=90)


def _tables_of(victim: Victim) -> str:
    secret = (victim.baton.home / "keys" / "database-secret").read_bytes()
    return service_url(victim.database_url, "tasks", secret)


def _numbers_and_runs(connection: Connection, clock: Clock) -> list[tuple[int, int]]:
    """The number of each message that is an event, with how many runs that has."""
    live, past = tables.runs, tables.run_history
    runs = union_all(select(live.c.event_id), select(past.c.event_id))
    of_event = Counter(connection.execute(runs).scalars())
    query = select(tables.events.c.id, tables.events.c.payload).where(tables.events.c.origin == "external")
    rows: Any = connection.execute(query).all()
    return [(payload["number"], of_event[event_id]) for event_id, payload in rows]

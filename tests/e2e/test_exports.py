"""Files of any length: the runs that the list shows, and a broken transfer rather than a short file."""

import csv
import io
import json
import os
import signal
from collections import deque
from functools import partial
from typing import Any

import pytest
import requests
from sqlalchemy import Connection, insert

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.tasks.store import tables
from tests.e2e.conftest import StartBaton
from tests.integration.tasks.past import past_run
from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

# Together far more than what fits between the database and a client that does not read.
ROWS, LOG = 20_000, "x" * 2000
CHUNK = 1 << 16
LEFT_OUT = ("inputs", "output")
# The engines differ in how they find rows, and the forms in how they are written: not in how a transfer breaks.
FILES = {"sqlite": "/runs.csv?columns=id&columns=log_excerpt", "postgres": "/runs.ndjson"}


def download(baton: Baton, path: str) -> requests.Response:
    response = baton.call("GET", path)
    assert response.status_code == 200, response.text
    return response


def listed(baton: Baton, filters: str) -> list[Any]:
    """All runs that the list shows, page by page."""
    found, cursor = [], ""
    while True:
        page = baton.get(f"/runs?limit=3&{filters}{cursor}")
        found += page["items"]
        if not page["has_more"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_files_hold_what_the_list_shows_whatever_is_asked_for(baton: Baton) -> None:
    works = baton.create("/tasks", task("=Works", {"uses": "echo.test"}))["id"]
    fails = baton.create("/tasks", task("Fails", {"uses": "tasks.run", "with": {"task_id": "nobody"}}))["id"]
    ids = [baton.run_now(task_id) for task_id in (works, fails, works, works, fails)]
    for run_id in ids:
        baton.finished(run_id)
    ours = f"task_id={works}&task_id={fails}"
    since = baton.get(f"/runs/{ids[2]}")["created_at"]
    for filters, expected in {
        ours: ids,
        f"task_id={works}": [ids[0], ids[2], ids[3]],
        f"{ours}&status=failed": [ids[1], ids[4]],
        f"{ours}&status=failed&status=succeeded": ids,
        f"{ours}&success=true": [ids[0], ids[2], ids[3]],
        f"{ours}&task=Fails": [ids[1], ids[4]],
        f"{ours}&since={since}": ids[2:],
        f"{ours}&until={since}": ids[:2],
        f"{ours}&start_time={since}&status=failed": [ids[4]],
        f"{ours}&text=fail": [ids[1], ids[4]],
        f"{ours}&role=": ids,
        f"{ours}&role=planner": [],
    }.items():
        shown = listed(baton, filters)
        assert [run["id"] for run in shown] == expected[::-1], filters
        table = csv.DictReader(io.StringIO(download(baton, f"/runs.csv?{filters}").text, newline=""))
        assert [row["id"] for row in table] == expected[::-1], filters
        lines = download(baton, f"/runs.ndjson?{filters}").text.splitlines()
        # A list has the same fields, and two more that it leaves empty.
        assert [json.loads(line) | dict.fromkeys(LEFT_OUT) for line in lines] == shown, filters
    cells = download(baton, f"/runs.csv?task_id={works}&columns=task&columns=status&limit=2").text
    assert cells == "task,status\r\n" + "'=Works,succeeded\r\n" * 2


@pytest.mark.timeout(600)
def test_a_file_that_is_cut_short_never_looks_complete(
    engine: str, start_here: StartBaton, own_database: dict[str, str]
) -> None:
    baton, path = start_here(), FILES[engine]
    _fill(own_database.get("DATABASE_URL", f"sqlite:///{baton.home}/tasks.db"))
    authorization = {"Authorization": f"Bearer {baton.admin_token}"}
    with requests.get(baton.url + path, headers=authorization, stream=True, timeout=60) as response:
        chunks = response.iter_content(CHUNK)
        # The first of many: the rest waits for somebody to read it.
        next(chunks)
        os.kill(baton.children()["tasks"], signal.SIGKILL)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            deque(chunks, maxlen=0)
    wait_until(baton.is_ready)
    whole = download(baton, path).text
    assert whole.count(LOG) == ROWS


def _fill(url: str) -> None:
    """Puts runs that are over straight into the tables of a Baton."""
    database = Database(url, schema="tasks")

    for _ in range(0, ROWS, 1000):
        # Made before: a transaction that waits for them for long is taken back.
        database.run(partial(_add, [past_run(log_excerpt=LOG) for _ in range(1000)]))
    database.close()


def _add(runs: list[dict[str, Any]], connection: Connection, clock: Clock) -> None:
    connection.execute(insert(tables.run_history), runs)

"""Services that restart under load: whoever calls sees success, or 503 with the time to come back, and nothing else."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import requests

from tests.chaos.conftest import Victim
from tests.support.baton import Baton, task
from tests.support.waiting import wait_until

CALLERS = 8
STEP = {"id": "only", "uses": "echo.test", "with": {"text": "x"}}
# Far below what the gateway gives a call: nobody waits for one that is dead.
PROMPTLY = 15.0


@dataclass
class Load:
    """Callers that create tasks, each with a key that it repeats until it has succeeded, and read in between."""

    baton: Baton
    created: dict[str, str] = field(default_factory=dict)
    """The id that each title was answered with first."""
    answers: list[tuple[str, int, float]] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def call_on(self, token: str) -> None:
        try:
            with requests.Session() as session:
                session.headers["Authorization"] = f"Bearer {token}"
                while not self.over.is_set():
                    self._create(session)
                    self._read(session)
        except Exception as error:
            self.wrong.append(repr(error))

    def _create(self, session: requests.Session) -> None:
        title, key = f"load {uuid4()}", str(uuid4())
        for _ in range(200):
            answer = self._ask(session, "POST", "/tasks", json=task(title, STEP), headers={"Idempotency-Key": key})
            if answer.status_code == 201:
                if answer.json()["title"] != title:
                    self.wrong.append(answer.json())
                self.created[title] = answer.json()["id"]
                return
            time.sleep(0.05)
        self.wrong.append(f"{title} was never created")

    def _read(self, session: requests.Session) -> None:
        for path in ("/tasks?limit=5", "/runs?limit=5", "/sessions?limit=5"):
            answer = self._ask(session, "GET", path)
            if answer.status_code == 200 and not answer.text.endswith("}"):
                self.wrong.append(answer.text)

    def _ask(self, session: requests.Session, method: str, path: str, **more: Any) -> requests.Response:
        began = time.monotonic()
        answer = session.request(method, self.baton.url + path, timeout=60, **more)
        self.answers.append((path, answer.status_code, time.monotonic() - began))
        if answer.status_code == 503:
            if not answer.headers.get("Retry-After", "").isdecimal():
                self.wrong.append(("no Retry-After", answer.text))
        elif answer.status_code not in (200, 201):
            self.wrong.append((answer.status_code, answer.text))
        return answer

    def goes_on(self, count: int) -> None:
        """Waits until so many more tasks are created, or something has gone wrong."""
        before = len(self.created)
        wait_until(lambda: self.wrong or len(self.created) > before + count)
        assert self.wrong == []


@contextmanager
def under_load(baton: Baton) -> Iterator[Load]:
    load = Load(baton)
    callers = [threading.Thread(target=load.call_on, args=(baton.admin_token,)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    try:
        yield load
    finally:
        load.over.set()
        for caller in callers:
            caller.join()


def all_titles(baton: Baton) -> list[tuple[str, str]]:
    found, cursor = [], ""
    while True:
        page = baton.get(f"/tasks?limit=200{cursor}")
        found += [(one["title"], one["id"]) for one in page["items"] if one["title"].startswith("load ")]
        if not page["has_more"]:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_who_calls_while_services_restart_sees_success_or_is_told_to_come_back(victim: Victim) -> None:
    baton = victim.baton
    with under_load(baton) as load:
        load.goes_on(20)
        for name in ("tasks", "sessions", "tasks"):
            baton.kill(name)
            load.goes_on(20)
        # And one that ends as it should, with calls in progress.
        os.kill(baton.children()["tasks"], signal.SIGTERM)
        load.goes_on(50)
    assert load.wrong == []
    assert max(seconds for _, _, seconds in load.answers) < PROMPTLY
    assert {status for _, status, _ in load.answers} == {200, 201, 503}
    # Each key made one task, and it is the one that its caller was told of.
    assert sorted(all_titles(baton)) == sorted(load.created.items())


def test_who_asks_whether_all_is_ready_is_told_what_is_not(victim: Victim) -> None:
    baton = victim.baton
    seen = ""

    def names_it() -> bool:
        nonlocal seen
        answer = requests.get(f"{baton.url}/health/ready", timeout=10)
        seen = answer.text
        return answer.status_code == 503 and "baton.tasks.v1" in answer.json()["detail"]

    with baton.standing_still("tasks"):
        wait_until(names_it)
        report = requests.get(f"{baton.url}/health", timeout=10).json()
        assert report["status"] == "degraded"
        assert report["summary"] == "2 of 3 services are healthy"
        assert requests.get(f"{baton.url}/health/live", timeout=10).status_code == 200
    wait_until(baton.is_ready)

"""All of Baton, started as a user starts it and driven over REST alone."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from tests.support.proc import children
from tests.support.processes import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_READY_SECONDS = 60.0
_STOP_SECONDS = 45.0
_FINISHED = ("succeeded", "failed")


class Baton:
    """`python -m services` with a home of its own, on a free port."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output: list[str] = []
        self._environment = {
            **os.environ,
            "BATON_HOME": str(home),
            "BATON_PORT": str(self.port),
            **environment,
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "Baton":
        """Starts it and waits for the line that says it is ready."""
        self.output.clear()
        self._listens = True
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services"],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_output, args=(self._process,), daemon=True)
        self._reader.start()
        try:
            wait_until(self._has_started, timeout=_READY_SECONDS)
        except TimeoutError as late:
            raise TimeoutError("\n".join([str(late), *self.output])) from None
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal to the supervisor alone and answers its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(_STOP_SECONDS)
        self._reader.join()
        return code

    def stop_listening(self) -> None:
        """Closes the pipe through which it tells the operator something, when the next line has come."""
        self._listens = False

    def children(self) -> dict[str, int]:
        """The process id of each of Baton's processes, by name."""
        return _titled(self.pid)

    def log(self, name: str) -> str:
        """What one of the processes has logged."""
        return (self.home / "logs" / f"{name}.log").read_text()

    @property
    def admin_token(self) -> str:
        return (self.home / "admin-token").read_text().strip()

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> requests.Response:
        """One request as the administrator, or with `token`; an empty token sends none."""
        token = self.admin_token if token is None else token
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(method, self.url + path, json=body, headers=authorization | named, timeout=60)

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        response = self.call("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of a POST that must create something."""
        response = self.call("POST", path, body)
        assert response.status_code == 201, response.text
        return response.json()

    def run_now(self, task_id: str, **headers: str) -> str:
        """Starts a task and answers the run's id."""
        response = self.call("POST", f"/tasks/{task_id}/run_now", {}, **headers)
        assert response.status_code == 200, response.text
        run_id: str = response.json()["details"]["run_id"]
        return run_id

    def finished(self, run_id: str, timeout: float = 60.0) -> Any:
        """The run once it has ended."""
        wait_until(lambda: self.get(f"/runs/{run_id}")["status"] in _FINISHED, timeout=timeout)
        return self.get(f"/runs/{run_id}")

    def kill(self, name: str) -> int:
        """Kills a process with -9; answers its id once the supervisor has started another."""
        killed: int = wait_until(lambda: self.children().get(name))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.children().get(name) not in (None, killed))
        return killed

    @contextmanager
    def standing_still(self, name: str) -> Iterator[None]:
        """A time in which one of the processes is stopped, but not dead."""
        pid = self.children()[name]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def is_ready(self) -> bool:
        """Whether the gateway answers, and says that all behind it do."""
        try:
            return self.call("GET", "/health/ready").status_code == 200
        except requests.ConnectionError:
            return False

    def agent_token(self, scopes: Sequence[str], role: str = "") -> str:
        """The token of a new agent."""
        agent = self.create("/agents", {"name": f"agent-{uuid4()}", "scopes": list(scopes), "role": role})
        token: str = self.create(f"/agents/{agent['id']}/tokens", {"scopes": list(scopes)})["token"]
        return token

    def _has_started(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "\n".join(["baton ended:", *self.output])
        return f"baton ready url={self.url}" in self.output

    def _read_output(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output.append(line.rstrip("\n"))
                if not self._listens:
                    return


def _titled(pid: int) -> dict[str, int]:
    """Below `pid`, the topmost processes with a title of Baton: what such a one forks has it too, for a moment."""
    found: dict[str, int] = {}
    for child in children(pid):
        with suppress(OSError):
            title = Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").decode()
            found |= {title.removeprefix("baton "): child} if title.startswith("baton ") else _titled(child)
    return found


def descendants(pid: int) -> set[int]:
    """The processes that `pid` has started, and those that they have."""
    return {one for child in children(pid) for one in (child, *descendants(child))}


def task(title: str, *steps: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A manual task with these steps."""
    params = fields.pop("params", {})
    return {"title": title, "schedule_kind": "manual", "payload": {"pipeline": list(steps), "params": params}} | fields

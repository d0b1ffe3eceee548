"""What an empty home shows first: two tool servers, one task that uses them, and a real run of it."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_SECONDS = 10


def load(url: str, token: str, home: Path) -> None:
    """Registers the servers, creates the "Morning briefing" and runs it once, over REST like anybody.

    Every request has a fixed key, so a demo that was broken off is completed and nothing is there twice.
    """

    def post(path: str, body: dict[str, Any], key: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own gateway
            url + path,
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Idempotency-Key": f"demo-{key}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as refused:
            raise OSError(f"POST {path}: {refused.read().decode(errors='replace')}") from None

    repository = _repository(home)
    programs = Path(sys.executable).parent
    post("/tool-servers", _stdio("time", [str(programs / "mcp-server-time"), "--local-timezone", "UTC"]), "time")
    post("/tool-servers", _stdio("git", [str(programs / "mcp-server-git"), "--repository", str(repository)]), "git")
    task = post("/tasks", morning_briefing(repository), "briefing")
    post(f"/tasks/{task['id']}/run_now", {}, "run")


def morning_briefing(repository: Path) -> dict[str, Any]:
    """The task: what time it is, what time that is in Chișinău, and what was last done in a repository."""
    return {
        "title": "Morning briefing",
        "description": "The time here and in Chișinău, and the newest commits of a repository.",
        "schedule_kind": "cron",
        "schedule_expr": "0 7 * * 1-5",
        "timezone": "Europe/Chisinau",
        "payload": {
            "params": {"repository": str(repository), "commits": 3},
            "pipeline": [
                {
                    "id": "clock",
                    "uses": "time.get_current_time",
                    "with": {"timezone": "UTC"},
                    "save_as": "clock",
                },
                {
                    "id": "local",
                    "uses": "time.convert_time",
                    "with": {
                        "source_timezone": "${steps.clock.timezone}",
                        "time": "${steps.clock.datetime[11:16]}",
                        "target_timezone": "Europe/Chisinau",
                    },
                    "save_as": "local",
                },
                {
                    "id": "commits",
                    "uses": "git.git_log",
                    "with": {"repo_path": "${params.repository}", "max_count": "${params.commits}"},
                    "save_as": "commits",
                },
            ],
        },
    }


def _stdio(name: str, command: list[str]) -> dict[str, Any]:
    return {"name": name, "transport": "stdio", "command": command}


def _repository(home: Path) -> Path:
    """A repository in the home: a clone of Baton's checkout, whose tools can then do no harm, or one of its own."""
    repository = home / "demo-repository"
    if not repository.exists():
        unfinished = home / "demo-repository.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _git("clone", "--quiet", "--no-hardlinks", str(_ROOT), str(unfinished))
        except subprocess.SubprocessError:
            # No checkout, or one that git does not trust because it is somebody else's.
            shutil.rmtree(unfinished, ignore_errors=True)
            _begin_repository(unfinished)
        unfinished.rename(repository)
    return repository


def _begin_repository(path: Path) -> None:
    identity = ("-c", "user.name=Baton", "-c", "user.email=baton@localhost")
    _git("init", "--quiet", str(path))
    _git("-C", str(path), *identity, "commit", "--quiet", "--allow-empty", "--message", "Begin")


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, capture_output=True, timeout=60)  # noqa: S603, S607

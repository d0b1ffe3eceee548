"""Child processes: started, watched, restarted when they crash, stopped in order."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_FIRST_RESTART_SECONDS = 0.2
_LAST_RESTART_SECONDS = 5.0
# A child that ran so long had started well: its next crash is a new story.
_STEADY_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Program:
    """A child to run: `python -m <module>` with this environment, logging to this file."""

    name: str
    module: str
    environment: Mapping[str, str]
    log: Path


class Child:
    """One program that is kept running until it is told to stop."""

    def __init__(self, program: Program, say: Callable[[str], None]) -> None:
        self.program = program
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the program and goes on watching it."""
        self._watch = asyncio.create_task(self._keep_running())

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL for what is still there after the grace period."""
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_seconds)
            except TimeoutError:
                self._say(f"{self.program.name} did not stop within {grace_seconds:g} s and was killed")
                process.kill()
        if self._watch is not None:
            await self._watch

    async def _keep_running(self) -> None:
        pause = _FIRST_RESTART_SECONDS
        while not self._stopping:
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_RESTART_SECONDS
            self._say(f"{self.program.name} {_ending(code)}; it is restarted, see {self.program.log}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_RESTART_SECONDS)

    async def _run_once(self) -> int:
        with self.program.log.open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches only the supervisor, which stops all in order.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.program.module,
                env=dict(self.program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        return await self._process.wait()


def _die_with_parent() -> None:
    """Asks Linux to send SIGTERM when the supervisor is gone, however it went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(0)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

"""Child processes: forked, watched, restarted when they crash, stopped in order.

Each of Baton's processes can be started by itself, with `python -m`. Here they are forked from one process that has
imported already what they share, because importing it five times would take longer than all the rest of a start.
"""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from setproctitle import setproctitle

_FIRST_RESTART_SECONDS = 0.2
_LAST_RESTART_SECONDS = 5.0
# A child that ran so long had started well: its next crash is a new story.
_STEADY_SECONDS = 30.0
_context = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Program:
    """A child to run: the module `services.<module>`, with this environment, logging to this file."""

    name: str
    """No two have the same."""
    module: str
    environment: Mapping[str, str]
    log: Path
    grace_seconds: float
    """How long it may take to stop by itself."""


def prepare() -> None:
    """Begins to import, in a process beside this one, what children share."""
    _context.set_forkserver_preload(["services.supervisor.preload"])
    forkserver.ensure_running()


class Child:
    """One program that is kept running until it is told to stop."""

    def __init__(self, program: Program, say: Callable[[str], None]) -> None:
        self.program = program
        self._say = say
        self._process: ForkServerProcess | None = None
        self._stopping = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the program and goes on watching it."""
        self._watch = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is still there after the grace period."""
        self._stopping.set()
        if self._watch is None:
            return
        if self._process is not None:
            self._process.terminate()
        done, _ = await asyncio.wait({self._watch}, timeout=self.program.grace_seconds)
        if not done and self._process is not None:
            self._say(f"{self.program.name} did not stop within {self.program.grace_seconds:g} s and was killed")
            self._process.kill()
        await self._watch

    async def _keep_running(self) -> None:
        pause = _FIRST_RESTART_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                ending = _ending(await self._run_once())
            except (OSError, EOFError) as error:
                ending = f"could not be started ({error})"
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_RESTART_SECONDS
            self._say(f"{self.program.name} {ending}; it is restarted, see {self.program.log}")
            await self._rest(pause)
            pause = min(pause * 2, _LAST_RESTART_SECONDS)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _run_once(self) -> int:
        process = _context.Process(target=_become, args=(self.program,))
        # The first one waits until the imports are done.
        await asyncio.to_thread(process.start)
        self._process = process
        if self._stopping.is_set():
            process.terminate()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        await ended.wait()
        loop.remove_reader(process.sentinel)
        process.join()
        code = process.exitcode or 0
        process.close()
        self._process = None
        return code


def _become(program: Program) -> None:
    """Turns this fork into the program."""
    # In a session of its own, so that Ctrl-C reaches only the supervisor, which stops all in order.
    os.setsid()
    _stop_without_supervisor()
    # Before the environment changes: the title is written over where its first one lay.
    setproctitle(f"baton {program.name}")
    os.environ.clear()
    os.environ.update(program.environment)
    _redirect(program.log)
    module = f"services.{program.module}"
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    lines = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(lines, 1)
    os.dup2(lines, 2)
    os.close(nothing)
    os.close(lines)


def _stop_without_supervisor() -> None:
    """Stops this process when the supervisor is gone, however it ended.

    It is not the parent: that is the process which this was forked from, and which lives as long as one of its forks.
    """
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "a fork has a parent"

    def watch() -> None:
        multiprocessing.connection.wait([supervisor.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="supervisor watch", daemon=True).start()


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

"""Starts a tool server, within limits, and sees to its end: a program of its own between the worker and the server.

    python -I -S launch.py CONTROL MEMORY_BYTES OPEN_FILES COMMAND...

CONTROL is the number of an open socket whose other end only the worker has: when that is closed, on purpose or because
the worker died, the server is ended and everything it has started, whether or not it has left the process group. The
same is done with what a server leaves behind. To the socket goes one line: `start` and why the server could not be
started, or `end` and how it ended. A limit of 0 is none.

It uses the standard library alone, and little of it, so that it starts in some 20 ms: not even contextlib.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator

_TERM_SECONDS = 2.0
_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OTHERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
_FAILED_TO_START = 127


def main(control: int, memory: int, open_files: int, command: list[str]) -> None:
    """Returns when no process is left of the server."""
    os.set_inheritable(control, False)
    # What is sent to the group is for the server; who ends this process would leave the server to itself.
    for number in _OTHERS:
        signal.signal(number, signal.SIG_IGN)
    # Orphans of the server come to this process and not to init, so that none is missed.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    died = _wake_up_on_death()
    launcher = os.getpid()
    server = os.fork()
    if not server:
        _become(control, memory, open_files, command, launcher)
    # Were these kept open, the worker would not notice that the server has closed its own.
    os.close(0)
    os.close(1)
    _watch(control, died, server)
    _end()


def _become(control: int, memory: int, open_files: int, command: list[str], launcher: int) -> None:
    """Turns this process into the server. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (*_OTHERS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:
            os._exit(_FAILED_TO_START)
        _limit(resource.RLIMIT_CORE, 0)
        # Not RLIMIT_AS: some runtimes reserve much more of the address space than they use.
        for kind, limit in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_NOFILE, open_files)):
            if limit:
                _limit(kind, limit)
        os.execv(command[0], command)  # noqa: S606 - to start it is what this is for; there is no shell
    except OSError as error:
        _tell(control, "start", os.strerror(error.errno or 0).lower())
    except Exception as error:
        _tell(control, "start", f"{type(error).__name__}: {error}")
    os._exit(_FAILED_TO_START)


def _watch(control: int, died: int, server: int) -> None:
    """Waits until the server has ended, which is told, or the worker wants its end."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(died, select.POLLIN)
    while True:
        ready = {number for number, _ in poll.poll()}
        if died in ready:
            os.read(died, 4096)
            status = dict(_reaped()).get(server)
            if status is not None:
                _tell(control, "end", _how(status))
                return
        if control in ready:
            return


def _end() -> None:
    """Ends what is left: asks it to, and then no longer asks."""
    if not _has_children():
        return
    os.killpg(0, signal.SIGTERM)
    if _all_end(_TERM_SECONDS, signal.SIGTERM) or _all_end(_KILL_SECONDS, signal.SIGKILL):
        return
    os.killpg(0, signal.SIGKILL)  # which is the end of this process, too


def _all_end(seconds: float, number: signal.Signals) -> bool:
    """Sends the signal to every child, also to those that come later, once; answers whether all ended in time."""
    give_up = time.monotonic() + seconds
    group = os.getpgrp()
    told: set[int] = set()
    while _has_children():
        if time.monotonic() > give_up:
            return False
        for child in _children():
            if child not in told:
                told.add(child)
                _signal(child, number, group)
        time.sleep(_POLL_SECONDS)
    return True


def _signal(child: int, number: signal.Signals, group: int) -> None:
    """Sends a signal; SIGTERM only to who is not in the group, which had it already."""
    try:
        if number == signal.SIGKILL or os.getpgid(child) != group:
            os.kill(child, number)
    except (ProcessLookupError, PermissionError):
        pass


def _has_children() -> bool:
    """Reaps those that have ended; answers whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """The children of this process, orphans of the server among them. Only Linux tells them all."""
    own = os.getpid()
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == own]
    except OSError:
        return []


def _parent(process_id: str) -> int:
    try:
        with open(f"/proc/{process_id}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended, and how."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended
    except ChildProcessError:
        return


def _wake_up_on_death() -> int:
    """A file that can be read when a child has ended."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    return read_end


def _limit(kind: int, limit: int) -> None:
    hardest = resource.getrlimit(kind)[1]
    if hardest != resource.RLIM_INFINITY:
        limit = min(limit, hardest)
    resource.setrlimit(kind, (limit, limit))


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"with exit code {code}"
    return f"by signal {-code} ({signal.Signals(-code).name})" if -code in set(signal.Signals) else f"by signal {-code}"


def _tell(control: int, what: str, why: str) -> None:
    try:  # noqa: SIM105 - what would be nicer takes long to import
        os.write(control, f"{what} {why[:400]}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody listens any more


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    os._exit(0)  # with nothing to tidy up

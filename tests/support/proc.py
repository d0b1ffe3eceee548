"""What the kernel says of processes."""

import os
from pathlib import Path

_ESTABLISHED = "01"


def gone(process_id: int) -> bool:
    """Whether a process has ended."""
    return _status(process_id)[0] in ("", "Z")


def children(process_id: int) -> list[int]:
    """The processes that a process has started, as long as it lives."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _status(int(name))[1] == str(process_id)]


def parent(process_id: int) -> int:
    """The process that has started a process, as long as both live."""
    return int(_status(process_id)[1])


def connections(port: int) -> int:
    """How many connections to a port of this machine are open at its end."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(state == _ESTABLISHED and int(local.partition(":")[2], 16) == port for _, local, _, state, *_ in lines)


def written(process_id: int) -> int:
    """How many bytes a process has ever written, to whatever."""
    return int(Path(f"/proc/{process_id}/io").read_text().split("wchar:")[1].split()[0])


def reset_peak() -> int:
    """Forgets how much memory this process ever had; answers how much it has now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory this process had since, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _status(process_id: int) -> tuple[str, str]:
    """The state and the parent of a process; empty when there is none."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[1]

"""The metrics of a process as text."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import free_port

ROOT = Path(__file__).parents[3]
_PROCESS = """
import sys
from services.chassis import telemetry
telemetry.configure("kiosk")
meter = telemetry.meter()
meter.create_counter("baton.papers.sold").add(3, {"kind": "daily"})
meter.create_histogram("baton.papers.wait", unit="s").record(0.3)
print("ready", flush=True)
sys.stdin.read()
telemetry.shutdown()
"""


@contextmanager
def process(address: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}", "BATON_METRICS_LISTEN": address}
    started = subprocess.Popen(
        [sys.executable, "-c", _PROCESS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        yield started
        assert started.stdin is not None
        started.stdin.close()


def ask(address: str, path: str = "/metrics") -> httpx2.Response:
    uds = address.removeprefix("unix:") if address.startswith("unix:") else None
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=uds), trust_env=False) as client:
        return client.get(f"http://{'localhost' if uds else address}{path}")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_a_process_counts_is_served(kind: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}" if kind == "tcp" else f"unix:{tmp_path}/m.prom"
    if kind == "unix":
        # What one that was killed has left behind.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{tmp_path}/m.prom")
    with process(address) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        answer = ask(address)
        assert ask(address, "/other").status_code == 404
        if kind == "unix":
            assert (tmp_path / "m.prom").stat().st_mode & 0o777 == 0o600
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'baton_papers_sold_total{kind="daily",service_name="baton-kiosk"} 3.0' in lines
    # Seconds have the buckets of seconds.
    assert 'baton_papers_wait_seconds_bucket{le="0.25",service_name="baton-kiosk"} 0.0' in lines
    assert 'baton_papers_wait_seconds_bucket{le="0.5",service_name="baton-kiosk"} 1.0' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "192.0.2.1:9102", "unix:/no/such/folder/x"])
def test_an_address_that_cannot_be_had_ends_the_process_with_a_line(address: str) -> None:
    with process(address) as started:
        assert started.stderr is not None
        assert started.wait(20) == 1
        assert started.stderr.read().startswith(f"kiosk: BATON_METRICS_LISTEN is {address}: ")


async def test_who_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/m.prom"
    with process(address) as started:
        assert started.stdout is not None
        started.stdout.readline()
        silent = [await asyncio.open_unix_connection(f"{tmp_path}/m.prom") for _ in range(20)]
        assert (await asyncio.wait_for(asyncio.to_thread(ask, address), 5)).status_code == 200
        for _, writer in silent:
            writer.close()

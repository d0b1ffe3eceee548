"""How fast the history comes through the gateway, and how much memory that takes there and in the tasks service.

    PYTHONPATH=.:gen .venv/bin/python -m bench.download [--engine sqlite|postgres] [--runs 1000000]

All of Baton runs over a scratch database of so many runs. On PostgreSQL the same rows are also copied out of the
server directly, which is the ceiling.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import psycopg
import requests

from bench.history import filled_database, forget_peak, memory
from tests.support.baton import Baton

_CHUNK = 1 << 16
_PROCESSES = ("tasks", "gateway")


def download(baton: Baton, path: str) -> None:
    """Prints what one download took."""
    processes = {name: baton.children()[name] for name in _PROCESSES}
    before = {name: forget_peak(process) for name, process in processes.items()}
    begun = time.perf_counter()
    length = lines = 0
    authorization = {"Authorization": f"Bearer {baton.admin_token}"}
    with requests.get(baton.url + path, headers=authorization, stream=True, timeout=60) as response:
        response.raise_for_status()
        for chunk in response.iter_content(_CHUNK):
            length += len(chunk)
            lines += chunk.count(b"\n")
    seconds = time.perf_counter() - begun
    print(f"{path}: {lines} lines, {length / 1e6:.0f} MB, {lines / seconds:.0f} lines/s", end="")
    for name, process in processes.items():
        print(f"; {memory('VmHWM', process) - before[name]:.0f} MB more in {name}", end="")
    print()


def copy(url: str) -> None:
    """Prints how fast the server hands out its rows."""
    begun = time.perf_counter()
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        lines = 0
        with cursor.copy("COPY (SELECT * FROM tasks.run_history ORDER BY id DESC) TO STDOUT (FORMAT csv)") as rows:
            for chunk in rows:
                lines += bytes(chunk).count(b"\n")
    print(f"COPY of all columns: {lines} lines, {lines / (time.perf_counter() - begun):.0f} lines/s")


def main() -> None:
    """Runs what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-download-"))
    try:
        with filled_database(options.engine, directory, options.runs) as url:
            measure(url, directory)
    finally:
        shutil.rmtree(directory)


def measure(url: str, directory: Path) -> None:
    """Starts Baton on a filled database and downloads what is in it."""
    if url.startswith("postgresql"):
        copy(url)
        baton = Baton(directory, BATON_DEMO="0", DATABASE_URL=url)
    else:
        baton = Baton(Path(url.removeprefix("sqlite:///")), BATON_DEMO="0")
    baton.start()
    try:
        for path in ("/runs.csv", "/runs.csv?columns=id&columns=task&columns=status", "/runs.ndjson"):
            download(baton, path)
    finally:
        baton.stop()


if __name__ == "__main__":
    main()

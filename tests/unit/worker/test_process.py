"""The worker as a process of its own, with a real tool server beneath it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.fake_tasks import FakeTasks
from tests.support.http_server import HttpServer, said
from tests.support.proc import children, gone
from tests.support.waiting import await_until

TOKEN = "baton_kid_secret_crc"


async def start(tasks: FakeTasks, folder: Path, **settings: str) -> asyncio.subprocess.Process:
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": ".:gen",
        "BATON_TASKS_ADDRESS": tasks.address,
        "BATON_SESSIONS_ADDRESS": tasks.address,
        "BATON_WORKFLOWS_ADDRESS": tasks.address,
        "BATON_WORKER_TOKEN_FILE": str(token_file),
        "BATON_WORKER_GRACE_SECONDS": "0.1",
        "BATON_LOG_LEVEL": "DEBUG",
        **settings,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.worker", env=environment, stderr=asyncio.subprocess.PIPE
    )


def processes(worker: asyncio.subprocess.Process) -> list[int]:
    """The launchers of a worker's tool servers, and the servers, once there are servers."""
    launchers = children(worker.pid)
    servers = [server for launcher in launchers for server in children(launcher)]
    return launchers + servers if servers else []


async def test_no_tool_server_outlives_its_worker_however_it_ends(tasks: FakeTasks, tmp_path: Path) -> None:
    tasks.add_stdio_server("time", str(Path(sys.executable).with_name("mcp-server-time")))
    step = {"uses": "time.get_current_time", "with": {"timezone": "Europe/Chisinau"}, "save_as": "clock"}
    workers = [await start(tasks, tmp_path) for _ in range(2)]
    logs = [asyncio.create_task(worker.communicate()) for worker in workers]
    try:
        run = await tasks.ended(await tasks.enqueue(step), timeout=40)
        assert run.output["clock"]["timezone"] == "Europe/Chisinau"
        await await_until(lambda: all(map(processes, workers)))
        servers = [server for worker in workers for server in processes(worker)]
        assert len(servers) == 4, "a launcher and a server for each worker"
        workers[0].send_signal(signal.SIGTERM)
        workers[1].kill()
        assert [await worker.wait() for worker in workers] == [0, -signal.SIGKILL]
        await await_until(lambda: all(map(gone, servers)), timeout=5)
        written = b"".join([(await log)[1] for log in logs]).decode()
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
        await asyncio.gather(*logs)
    assert '"event":"stopped"' in written
    assert TOKEN not in written
    assert [line for line in written.splitlines() if not line.startswith("{")] == []


async def test_an_operator_allows_what_requests_may_reach(tasks: FakeTasks, tmp_path: Path) -> None:
    async with HttpServer().serving() as server:
        server.answers["/"] = said(200, b"hello", Set_Cookie=TOKEN)
        request = {"url": server.url(f"/?key={TOKEN}"), "headers": {"Authorization": TOKEN}}
        worker = await start(tasks, tmp_path, BATON_EGRESS_ALLOW=f"127.0.0.1:{server.port}")
        log = asyncio.create_task(worker.communicate())
        try:
            run = await tasks.ended(
                await tasks.enqueue({"uses": "http.request", "with": request, "save_as": "answer"}), timeout=40
            )
            worker.send_signal(signal.SIGTERM)
            written = (await log)[1].decode()
        finally:
            if worker.returncode is None:
                worker.kill()
            await log
    assert run.output["answer"]["text"] == "hello"
    assert TOKEN not in written


async def test_what_a_tool_server_has_started_does_not_outlive_a_worker_that_is_killed(
    tasks: FakeTasks, tmp_path: Path
) -> None:
    tasks.add_stdio_server("plain", sys.executable, "-m", "tests.support.plain_mcp_server", PYTHONPATH=".")
    steps = [{"uses": f"plain.{tool}", "save_as": tool} for tool in ("cling", "beget")]
    worker = await start(tasks, tmp_path)
    log = asyncio.create_task(worker.communicate())
    try:
        run = await tasks.ended(await tasks.enqueue(*steps), timeout=40)
        offspring = [run.output["cling"], *run.output["beget"]]
        assert not any(map(gone, offspring))
        worker.kill()
        await await_until(lambda: all(map(gone, offspring)), timeout=5)
    finally:
        if worker.returncode is None:
            worker.kill()
        await log

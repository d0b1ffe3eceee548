"""The end of the process: nobody is waited for in vain, and nothing is lost."""

import asyncio
import time
from pathlib import Path

import pytest
from baton.tasks.v1.work_service_pb2 import LeaseRunsRequest, LeaseRunsResponse
from baton.tasks.v1.work_service_pb2_grpc import WorkServiceStub
from sqlalchemy import select

from services.chassis.database import Database
from services.chassis.errors import Unavailable
from services.chassis.ids import new_id
from services.tasks.service import SCHEMA
from services.tasks.store import tables
from tests.integration.tasks.running import EVERYTHING, Tasks
from tests.integration.tasks.work import PROMPTLY, locked_queue, waiting_workers
from tests.support.grpc import Signer, channel_of
from tests.support.processes import running


@pytest.mark.usefixtures("hints_only")
async def test_who_waits_for_work_is_sent_away_at_once(tasks: Tasks) -> None:
    waiting = await waiting_workers(tasks, 3)
    tasks.service.stop_waiting()
    assert await asyncio.wait_for(asyncio.gather(*waiting), PROMPTLY) == [[], [], []]


async def test_who_comes_while_the_service_stops_gets_nothing(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.run_now(task.id)
    tasks.service.stop_waiting()
    assert await asyncio.wait_for(tasks.lease(wait_seconds=10), PROMPTLY) == []


async def test_a_claim_that_the_end_interrupts_is_given_back(tasks: Tasks) -> None:
    task = await tasks.create()
    await tasks.run_now(task.id)
    async with locked_queue(tasks):
        calling = asyncio.ensure_future(tasks.work.LeaseRuns(LeaseRunsRequest(worker_id=new_id())))
        await asyncio.wait([calling], timeout=0.2)
        await tasks.service.server.stop(None)
        with pytest.raises(Unavailable):
            await calling
        closing = asyncio.create_task(tasks.service.close())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
    await asyncio.wait_for(closing, PROMPTLY)
    database = Database(tasks.settings.database_url, schema=SCHEMA, pool_size=1)
    query = select(tables.runs.c.lease_token, tables.runs.c.crashes)
    (row,) = await database.read(lambda connection, clock: connection.execute(query).all())
    database.close()
    assert tuple(row) == (None, 0)


async def test_a_process_stops_at_once_though_workers_wait(migrated_url: str, tmp_path: Path) -> None:
    signer = Signer.trusted_through(tmp_path / "jwks.json")
    (tmp_path / "cursor-key").write_bytes(b"a key that only tests sign with!")
    environment = {
        "BATON_DATABASE_URL": migrated_url,
        "BATON_JWKS_FILE": str(tmp_path / "jwks.json"),
        "BATON_CURSOR_KEY_FILE": str(tmp_path / "cursor-key"),
    }
    with running("services.tasks", environment) as process:
        await process.await_health("SERVING")
        async with channel_of(process.address, signer.token(EVERYTHING)) as channel:
            request = LeaseRunsRequest(worker_id=new_id(), wait_seconds=20)
            waiting = asyncio.ensure_future(WorkServiceStub(channel).LeaseRuns(request, timeout=30))
            _, pending = await asyncio.wait([waiting], timeout=0.5)
            assert pending
            began = time.monotonic()
            assert await asyncio.to_thread(process.stop) == 0
            assert time.monotonic() - began < 5
            assert await waiting == LeaseRunsResponse()

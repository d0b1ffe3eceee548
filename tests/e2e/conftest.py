"""Baton, whole, on each engine: started once, used by many tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support import databases
from tests.support.baton import Baton
from tests.support.otlp import Receiver, otlp_receiver
from tests.support.postgres import Postgres
from tests.support.waiting import wait_until

StartBaton = Callable[..., Baton]


@pytest.fixture(scope="package")
def batons(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Baton]]:
    """Answers the Baton on an engine: started when it is first asked for, and used until the last test here."""
    started: dict[str, Baton] = {}
    with ExitStack() as stack:

        def on(engine: str) -> Baton:
            if engine not in started:
                environment = {}
                if engine == "postgres":
                    environment["DATABASE_URL"] = stack.enter_context(databases.postgres_database(postgres))
                started[engine] = Baton(tmp_path_factory.mktemp("baton") / "home", **environment).start()
                # Until the worker has told what the demo's servers offer, any tool of theirs would be accepted.
                wait_until(lambda: {"time", "git"} <= _servers(started[engine]))
            return started[engine]

        yield on
        assert [one.stop() for one in started.values()] == [0] * len(started)


@pytest.fixture(scope="package", params=databases.ENGINES, ids="{} baton".format)
def baton(request: pytest.FixtureRequest, batons: Callable[[str], Baton]) -> Baton:
    """A Baton with the demo, on SQLite and on a PostgreSQL server of the user's own."""
    return batons(request.param)


def _servers(baton: Baton) -> set[str]:
    return {tool["address"].partition(".")[0] for tool in baton.get("/tools?limit=200")["items"]}


@pytest.fixture
def start_baton(tmp_path: Path) -> Iterator[StartBaton]:
    """Starts a Baton of the test's own, without the demo unless asked for; stops it at the end if it still runs."""
    started: list[Baton] = []

    def start(**environment: str) -> Baton:
        one = Baton(tmp_path / f"home{len(started)}", **({"BATON_DEMO": "0"} | environment))
        started.append(one)
        return one.start()

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """What is told every span and metric of a Baton that `start_traced` has started."""
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def own_database(engine: str, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The settings of a Baton on an empty database of `engine`, for a test that starts its own."""
    if engine == "sqlite":
        yield {}
        return
    with databases.postgres_database(request.getfixturevalue("postgres")) as url:
        yield {"DATABASE_URL": url}


# Its database is made before what stops the Baton on it, and so is dropped after that.
@pytest.fixture
def start_here(own_database: dict[str, str], start_baton: StartBaton) -> StartBaton:
    """Starts a Baton of the test's own on `engine`."""
    return partial(start_baton, **own_database)


@pytest.fixture
def start_traced(start_here: StartBaton, receiver: Receiver) -> StartBaton:
    """Starts a Baton of the test's own on `engine`, whose traces go to `receiver`."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.address}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return partial(start_here, **settings)

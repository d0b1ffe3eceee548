"""Lines of runs with the same role and concurrency key: whatever happens, everybody's turn comes."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Connection, delete, func, select

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.ids import new_id
from services.tasks.models.run import (
    Canceled,
    ErrorClass,
    Failed,
    LeasedRun,
    Outcome,
    Released,
    RunError,
    RunReport,
    Succeeded,
)
from services.tasks.operations import work
from services.tasks.service import SCHEMA
from services.tasks.store import queue, tables
from tests.integration.tasks.lines import check_lines, new_run
from tests.support.clock import ManualClock

ROLES = st.sampled_from(["", "review"])
KEYS = st.sampled_from(["", "one", "two"])
TASKS = [new_id(), new_id()]
DOWN = RunError(ErrorClass.TOOL, "the tool is down", retryable=True, step_id="")
CALLED_OFF = RunError(ErrorClass.CANCELED, "called off", retryable=False, step_id="")
OUTCOMES: list[Outcome] = [Succeeded({}), Failed(DOWN, {}), Canceled({}), Released()]


@pytest.fixture
def database(migrated_url: str, clock: ManualClock) -> Iterator[Database]:
    database = Database(migrated_url, schema=SCHEMA, pool_size=1, clock=clock)
    yield database
    database.close()


def test_a_line_never_loses_its_head(database: Database, clock: ManualClock) -> None:
    class Lines(RuleBasedStateMachine):
        """Everything that may happen to runs."""

        def __init__(self) -> None:
            super().__init__()
            database.run(lambda connection, clock: connection.execute(delete(tables.runs)))
            self.held: list[LeasedRun] = []

        @rule(
            role=ROLES,
            keys=st.lists(KEYS, min_size=1, max_size=3),
            task_id=st.sampled_from(TASKS),
            priority=st.integers(1, 9),
            minutes=st.integers(-5, 5),
        )
        def add(self, role: str, keys: list[str], task_id: str, priority: int, minutes: int) -> None:
            due_at = clock.now() + timedelta(minutes=minutes)
            new = [
                new_run(due_at, task_id=task_id, role=role, concurrency_key=key, priority=priority, max_retries=1)
                for key in keys
            ]
            database.run(lambda connection, clock: queue.add_runs(connection, new, clock.now()))

        @rule(role=ROLES, limit=st.integers(1, 4))
        def claim(self, role: str, limit: int) -> None:
            claimed = database.run(
                lambda connection, clock: work.lease_runs(
                    connection, worker_id=new_id(), agent_id=new_id(), role=role, limit=limit, clock=clock
                )
            )
            self.held += claimed.runs

        @rule(outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3))
        def report(self, outcomes: list[Outcome]) -> None:
            reports = [RunReport(run.lease, [], outcome) for run, outcome in zip(self.held, outcomes, strict=False)]
            self.held = self.held[len(reports) :]
            database.run(lambda connection, clock: work.report_runs(connection, reports, clock))

        @rule(seconds=st.sampled_from([1, 31, 400]))
        def wait(self, seconds: int) -> None:
            clock.advance(seconds=seconds)
            database.run(work.rescue_runs)

        @rule(task_id=st.sampled_from(TASKS), change=st.sampled_from(["pause", "resume", "snooze", "cancel"]))
        def change(self, task_id: str, change: str) -> None:
            def apply(connection: Connection, clock: Clock) -> Any:
                if change == "pause":
                    return queue.pause_runs_of_task(connection, task_id, clock.now())
                if change == "resume":
                    return queue.resume_runs_of_task(connection, task_id, clock.now())
                if change == "snooze":
                    return queue.snooze_runs_of_task(connection, task_id, timedelta(minutes=2), clock.now())
                return queue.cancel_live_of_task(connection, task_id, CALLED_OFF, clock.now())

            database.run(apply)

        @invariant()
        def every_line_has_its_head(self) -> None:
            database.run(check_lines)

        def teardown(self) -> None:
            """Nobody is left behind: when all may go on, all come to an end."""
            for task_id in TASKS:
                self.change(task_id, "resume")
            for _ in range(60):
                clock.advance(minutes=10)
                database.run(work.rescue_runs)
                for role in ("", "review"):
                    self.claim(role, 100)
                self.report([Succeeded({})] * len(self.held))
                if database.run(_live) == 0:
                    break
            assert database.run(_live) == 0

    run_state_machine_as_test(
        Lines,
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            # A failure is rare enough to be read as it is; to shrink it takes minutes.
            phases=[Phase.generate],
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _live(connection: Connection, clock: Clock) -> int:
    count: int = connection.execute(select(func.count()).select_from(tables.runs)).scalar_one()
    return count

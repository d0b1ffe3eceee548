"""How sessions go on, and when they end by themselves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from services.sessions.models.session import Lapse, Session, SessionEvent, SessionStatus

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND, WEEK = timedelta(seconds=1), timedelta(days=7)
LEGAL = {
    ("pending", "active"), ("pending", "expired"),
    ("active", "paused"), ("active", "completed"), ("active", "failed"), ("active", "expired"),
    ("paused", "active"), ("paused", "expired"),
}  # fmt: skip
EVENTS = {
    ("activate", "pending", "active"),
    ("pause", "active", "paused"),
    ("resume", "paused", "active"),
    ("complete", "active", "completed"),
    ("fail", "active", "failed"),
}
SESSION = Session(
    id="id", agent_role="planner", agent_id="agent", created_at=NOON, updated_at=NOON, last_activity_at=NOON
)


@pytest.mark.parametrize(("old", "new"), list(product(SessionStatus, SessionStatus)))
def test_what_can_follow_what_is_as_the_contract_says(old: SessionStatus, new: SessionStatus) -> None:
    assert (new in old.followers) == ((old.value, new.value) in LEGAL)


@pytest.mark.parametrize("status", SessionStatus)
def test_only_ends_are_final(status: SessionStatus) -> None:
    assert status.is_final == (status.value in ("completed", "failed", "expired"))


def test_events_are_as_the_contract_says() -> None:
    assert {(event.value, event.begins.value, event.leads_to.value) for event in SessionEvent} == EVENTS


@pytest.mark.parametrize(("status", "event"), list(product(SessionStatus, SessionEvent)))
def test_what_can_happen_leads_where_the_status_may_go(status: SessionStatus, event: SessionEvent) -> None:
    assert (event in status.events) == any(name == event and begins == status for name, begins, _ in EVENTS)
    if event in status.events:
        assert event.leads_to in status.followers


def test_a_session_without_timeouts_never_ends_by_itself() -> None:
    assert SESSION.end() is None
    assert SESSION.lapse(NOON + timedelta(days=10_000), None) is None


def test_the_first_of_its_ends_counts() -> None:
    busy = replace(SESSION, idle_timeout_seconds=60, max_lifetime_seconds=100)
    assert busy.end(WEEK) == (NOON + 60 * SECOND, Lapse.IDLE_TIMEOUT)
    busy = replace(busy, last_activity_at=NOON + 50 * SECOND)
    assert busy.end(WEEK) == (NOON + 100 * SECOND, Lapse.MAX_LIFETIME)
    assert replace(SESSION, last_activity_at=NOON + SECOND).end(WEEK) == (NOON + SECOND + WEEK, Lapse.RETENTION)


@pytest.mark.parametrize("status", SessionStatus)
def test_what_has_not_ended_lapses_just_at_its_end(status: SessionStatus) -> None:
    session = replace(SESSION, status=status, idle_timeout_seconds=60)
    assert session.lapse(NOON + 60 * SECOND - timedelta(microseconds=1), WEEK) is None
    assert session.lapse(NOON + 60 * SECOND, WEEK) == (None if status.is_final else Lapse.IDLE_TIMEOUT)


def test_since_when_it_is_what_it_is() -> None:
    paused = replace(SESSION, status=SessionStatus.PAUSED, last_transition_at=NOON)
    assert (paused.since(SessionStatus.PAUSED), paused.since(SessionStatus.FAILED)) == (NOON, None)

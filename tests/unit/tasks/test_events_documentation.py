"""docs/events.md says what is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from services.pipeline.cel import Subject, compile_filter
from services.pipeline.definition import check
from services.pipeline.errors import ExpressionError
from services.pipeline.templates import render
from services.tasks.models.approval import ApprovalStatus
from services.tasks.models.event import MAX_DEPTH, DeliveryOutcome
from services.tasks.models.topic import RESERVED, matches, pattern_fault
from services.tasks.operations.task_audit import _MOVED, _TOPICS
from services.tasks.store.domain_event import RUN_TOPICS

TEXT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()


def block(language: str) -> Any:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return json.loads(found)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that begins with `heading`."""
    table = TEXT.partition(f"\n| {heading} |")[2].partition("\n\n")[0].strip().split("\n")[1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\) \| ", line.strip("| "))] for line in table]


def code(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall("`([^`]+)`", cell)


EVENT = Subject("order.created", block("json payload"))


def test_the_example_is_a_task_that_its_sample_fires() -> None:
    task, sample = block("json task"), block("json sample")
    assert check(task["payload"], has_event=True) == []
    assert pattern_fault(task["schedule_expr"]) == ""
    topic = sample["run"]["topic"]
    assert matches(task["schedule_expr"], topic)
    assert compile_filter(task["event_filter"]).holds(Subject(topic, sample["event"]))
    context = {"event": sample["event"], "run": {"topic": topic, "event_id": "0192"}}
    assert render(task["payload"]["pipeline"][0]["with"], context) == {
        "text": "order 7 over 120.5 came as order.created, in event 0192"
    }


@pytest.mark.parametrize(("pattern", "matching", "other"), rows("Pattern | Matches | Does not match"))
def test_what_patterns_match(pattern: str, matching: str, other: str) -> None:
    (given,) = code(pattern)
    assert pattern_fault(given) == ""
    assert all(matches(given, topic) for topic in code(matching))
    assert not any(matches(given, topic) for topic in code(other))


@pytest.mark.parametrize(("text", "truth"), rows("Filter | True"))
def test_what_filters_say(text: str, truth: str) -> None:
    assert compile_filter(code(text)[0]).holds(EVENT) is (truth == "yes")


@pytest.mark.parametrize(("text", "message"), rows("Filter | Error"))
def test_what_filters_cannot_say(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_filter(code(text)[0]).holds(EVENT)
    assert str(caught.value) == message


@pytest.mark.parametrize(("elements", "size", "has_room"), [(1000, 10, True), (5000, 100, False)])
def test_how_much_room_there_is(elements: int, size: int, has_room: bool) -> None:
    each = {"id": "x" * (size * 1024 // elements - len('{"id":""},'))}
    event = Subject("t", {"wanted": "b", "items": [each] * elements})
    assert event.size == pytest.approx(size * 1024, rel=0.05)
    text = "event.items.exists(item, item.id == event.wanted)"
    assert text in TEXT
    assert re.search(rf"{size} KiB\s+with\s+{elements}\b", TEXT)
    if has_room:
        assert not compile_filter(text).holds(event)
    else:
        with pytest.raises(ExpressionError, match="too much work"):
            compile_filter(text).holds(event)


def test_every_outcome_is_told() -> None:
    assert [code(cells[0])[0] for cells in rows("Outcome | When")] == [outcome.value for outcome in DeliveryOutcome]


def test_every_topic_of_batons_own_is_told() -> None:
    told = [topic for cells in rows("Topic | When") for topic in code(cells[0])]
    asked = {f"approval.{status}" for status in ApprovalStatus if status is not ApprovalStatus.PENDING}
    own = {*RUN_TOPICS.values(), *_TOPICS.values(), *_MOVED.values(), "task.created", "approval.requested", *asked}
    # Those of the other contexts are told by their own documents.
    assert {topic for topic in told if topic.split(".")[0] in ("approval", "run", "task")} == own
    assert len(told) == len(set(told))


def test_the_numbers_and_names_are_those_of_the_code() -> None:
    listed = TEXT.partition("publish topics that begin with ")[2].partition(".")[0]
    assert tuple(code(listed)) == RESERVED
    assert f"deeper than {MAX_DEPTH} no run is made" in TEXT
    assert f"two of them make {sum(2**depth for depth in range(1, MAX_DEPTH + 1))} runs of one" in TEXT

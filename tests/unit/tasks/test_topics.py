"""Topics and the patterns that stand for them."""

import re

import pytest

from services.tasks.models import topic as topics

PATTERNS = ["order.created", "order.*", "order.**", "*.created", "*.*", "**", "*", "order.*.paid", "*.eu.**", "a.*.*"]
TOPICS = ["order.created", "order.eu.paid", "order.eu.late.paid", "order", "run.succeeded", "run", "a.b.c", "x-1.eu.y"]
MATCHING = {
    "order.created": {"order.created", "order.*", "order.**", "*.created", "*.*", "**"},
    "order.eu.paid": {"order.**", "order.*.paid", "*.eu.**", "**"},
    "order.eu.late.paid": {"order.**", "*.eu.**", "**"},
    "order": {"**", "*"},
    "run.succeeded": set(),
    "run": set(),
    "a.b.c": {"a.*.*", "**"},
    "x-1.eu.y": {"*.eu.**", "**"},
}


@pytest.mark.parametrize("topic", TOPICS)
def test_which_patterns_match(topic: str) -> None:
    assert {pattern for pattern in PATTERNS if topics.matches(pattern, topic)} == MATCHING[topic]


@pytest.mark.parametrize(("pattern", "topic"), [("run.*", "run.failed"), ("run.**", "run.failed"), ("run.*", "run.x")])
def test_batons_own_topics_are_waited_for_by_name(pattern: str, topic: str) -> None:
    assert topics.matches(pattern, topic)
    assert not topics.matches("*.failed", topic)
    assert not topics.matches("**", topic)


def test_every_pattern_that_matches_is_found_by_its_key() -> None:
    for topic in [*TOPICS, "run.failed"]:
        for pattern in [*PATTERNS, "run.*", "run.**", "run.failed"]:
            if topics.matches(pattern, topic):
                assert topics.key_of(pattern) in topics.keys_of(topic), (pattern, topic)


def test_the_key_leaves_out_what_begins_otherwise() -> None:
    assert topics.keys_of("a.b.c") == ["a.b.c", "*", "a.*", "a.b.*"]
    assert topics.keys_of("run.failed") == ["run.failed", "run.*"]
    assert [topics.key_of(pattern) for pattern in ("a.b", "a.*", "a.**", "a.*.c", "*.c", "**")] == [
        "a.b", "a.*", "a.*", "a.*", "*", "*",
    ]  # fmt: skip


def test_as_a_regular_expression_it_means_the_same() -> None:
    for pattern in PATTERNS:
        for topic in TOPICS:
            found = re.search(topics.as_expression(pattern), topic)
            assert bool(found) is topics.matches(pattern, topic), (pattern, topic)


@pytest.mark.parametrize("topic", ["a", "order.created", "A-b_c.1", "a" * 100, "runs.x", "tasks"])
def test_what_is_a_topic(topic: str) -> None:
    assert topics.topic_fault(topic) == ""
    assert topics.pattern_fault(topic) == ""


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("", "is required"),
        ("a" * 101, "has 101 characters, at most 100"),
        ("a..b", "is no topic"),
        (".a", "is no topic"),
        ("a.", "is no topic"),
        ("a b", "is no topic"),
        ("order.*", "is no topic"),
        ("é", "is no topic"),
        ("a\n", "is no topic"),
        ("run.mine", "topics that begin with 'run' are Baton's own"),
        ("task", "are Baton's own"),
    ],
)
def test_what_is_none(topic: str, fault: str) -> None:
    assert fault in topics.topic_fault(topic)


@pytest.mark.parametrize("pattern", [*PATTERNS, "run.*", "task.created"])
def test_what_is_a_pattern(pattern: str) -> None:
    assert topics.pattern_fault(pattern) == ""
    assert topics.topic_fault(topics.example_of(pattern)) == "" or topics.is_reserved(pattern)
    assert topics.matches(pattern, topics.example_of(pattern))


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [("**.a", "has ** before its end"), ("a.**.b", "has ** before its end"), ("a*", "is no topic"),
     ("a.***", "is no topic"), ("a..*", "is no topic"), ("", "is required")],
)  # fmt: skip
def test_what_is_no_pattern(pattern: str, fault: str) -> None:
    assert fault in topics.pattern_fault(pattern)

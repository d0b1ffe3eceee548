"""Filters: what they say of an event, what is wrong with them, and what they may cost."""

import threading
from typing import Any

import pytest

from services.pipeline.cel import MAX_LENGTH, MAX_WORK, Finding, Subject, compile_filter, compile_question
from services.pipeline.errors import ExpressionError

PAYLOAD: dict[str, Any] = {
    "kind": "order",
    "total": 120,
    "ratio": 0.5,
    "paid": True,
    "note": None,
    "tags": ["new", "eu"],
    "lines": [{"sku": "a", "price": 100}, {"sku": "b", "price": 20}],
    "with space": {"deep": [1]},
    "at": "2026-03-01T05:00:00Z",
}


def holds(text: str, payload: dict[str, Any] | None = None, topic: str = "order.created") -> bool:
    return compile_filter(text).holds(Subject(topic, PAYLOAD if payload is None else payload))


def fault(text: str, payload: dict[str, Any] | None = None) -> str:
    with pytest.raises(ExpressionError) as caught:
        holds(text, payload)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "event.kind == 'order' && topic == 'order.created'",
        "event.total > 100",
        "event.total == 120 && event.total > 119.5",
        "event.total + 1.0 > 120.5",
        "event.paid",
        "event.note == null",
        "has(event.total) && !has(event.other)",
        "'kind' in event && 'eu' in event.tags",
        "event['with space'].deep[0] == 1",
        "event.lines.exists(line, line.price > 50)",
        "event.lines.all(line, line.price > event.total - 110.0)",
        "event.lines.exists_one(line, line.sku == 'a')",
        "size(event.lines.filter(line, line.price > 50)) == 1",
        "event.lines.map(line, line.sku) == ['a', 'b']",
        "['order', 'invoice'].exists(word, topic.contains(word))",
        "event.kind.contains('rde') && event.kind.startsWith('or') && event.kind.endsWith('er')",
        "timestamp(event.at) > timestamp('2026-01-01T00:00:00Z')",
        "int(event.total) % 7 == 1",
        "event.other == 1 || true",
        "event.all // a field may be called so\n == 1 || true",
    ],
)
def test_what_is_true(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize("text", ["event.total > 1000", "!event.paid", "topic == 'other'", "event.tags == []"])
def test_what_is_not(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the expression is empty"),
        ("event.total >", "\"event.total >\" is no CEL: mismatched input '<EOF>' at column 14"),
        ("evnt.total > 1", "\"evnt.total > 1\" is no CEL: undeclared reference to 'evnt.total' at column 5"),
        ("event.kind.matches('o.*')", "undeclared reference to 'matches'"),
        ("event > 1", "found no matching overload for '_>_' applied to '(map(string, dyn), int)'"),
        ("topic", "is a string, and must be true or false"),
        ("size(event)", "is an int, and must be true or false"),
        ("1 + " * 250 + "1 == 2", "has 1006 characters, at most 1000"),
        ("1 + " * 40 + "1 == 2", "exceeded max recursion depth of 32"),
        ("event.kind.contains(event.note)", "contains() looks for a text in quotes, and for nothing else"),
        ("event.tags.map(t, [t]).all(t, true)", "go through a field, such as event.items, or a list of constants"),
        ("[event.kind].all(t, true)", "go through a field"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    assert message in fault(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event.other == 1", 'cannot be evaluated: key not found in map : "other"'),
        ("event.kind > 1", "cannot be evaluated: no matching overloads found : _>_(string, int64)"),
        ("event.total + 1 > 1", "cannot be evaluated: no matching overloads found : _+_(double, int64)"),
        ("event.kind.of == 1", "cannot be evaluated: it asks for a field of what is no object"),
        ("has(event.note.of)", "cannot be evaluated: it asks for a field of what is no object"),
        ("event.kind", "is a string here, and must be true or false"),
        ("event.note", "is a null here, and must be true or false"),
    ],
)
def test_what_cannot_be_told(text: str, message: str) -> None:
    assert fault(text) == message


def test_a_null_costs_the_interpreter_nothing() -> None:
    """The library gives a null away without counting that; asked thousands of times, it would end the process."""
    for _ in range(20_000):
        fault("event.note")


@pytest.mark.parametrize(
    "text",
    [
        "event.items.all(x, event.items == event.items)",
        "event.items.all(x, size(event.text) > 1)",
        "size(event.items.map(x, x)) > 1",
        "size(event.items.filter(x, true)) > 1",
        "event.items.map(x, event.text) == []",
        "event.items.all(x, event.items.all(y, event.text != ''))",
        "size(" + "+".join(["event.text"] * 25) + ") > 1",
    ],
)
def test_what_would_take_seconds_is_refused(text: str) -> None:
    large = {"items": list(range(9_000)), "text": "a" * 150_000}
    assert fault(text, large) == "is too much work for an event of 193911 bytes"
    # What is refused is this event, and not the filter.
    compile_filter(text).holds(Subject("t", {"items": [1, 2], "text": "ab"}))


def test_no_more_elements_are_gone_through_than_there_may_be() -> None:
    assert fault("event.items.all(x, x >= 0)", {"items": [0] * 10_001}) == "goes through more than 10000 elements"
    nested = {"items": [{"items": [0] * 200}] * 60}
    assert fault("event.items.all(x, x.items.all(y, y == 0))", nested) == "goes through more than 10000 elements"


@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("event.items.exists(x, x.id == event.wanted)", 1_200),
        ("event.items.exists(x, x.id == 'b')", 9_000),
        ("size(event.items.filter(x, x.id == 'b')) > 3", 700),
    ],
)
def test_honest_filters_of_honest_events_have_room(text: str, most: int) -> None:
    payload = {"wanted": "b", "items": [{"id": "a"}] * most}
    assert compile_filter(text).work(Subject("t", payload)) < MAX_WORK
    holds(text, payload)


def test_the_longest_filter_is_read() -> None:
    text = "event.kind == 'order'"
    assert holds(text + " " * (MAX_LENGTH - len(text)))


def test_filters_are_shared_by_threads() -> None:
    failures: list[BaseException] = []
    shared = compile_filter("event.items.exists(x, x.v == 7) && topic.startsWith('t')")

    def ask() -> None:
        try:
            for _ in range(300):
                assert shared.holds(Subject("t", {"items": [{"v": number} for number in range(10)]}))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def true_of(text: str, result: Any, params: dict[str, Any] | None = None) -> bool:
    return compile_question(text).holds(Finding(result, params or {}))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("result", True),
        ("result > 3", 4),
        ("result == 'up'", "up"),
        ("result.status == 200 && result.body.ready", {"status": 200, "body": {"ready": True}}),
        ("result.exists(one, one.free < params.least)", [{"free": 9}, {"free": 1}]),
        ("result.items.all(one, one in params.known)", {"items": ["a"]}),
        ("size(result) == 2", [1, 2]),
        ("result == null", None),
    ],
)
def test_what_is_true_of_a_finding(text: str, result: Any) -> None:
    assert true_of(text, result, {"least": 2, "known": ["a", "b"]})


@pytest.mark.parametrize("text", ["event.a == 1", "topic == 'a'", "now > params.a"])
def test_a_question_reads_the_result_and_the_parameters_alone(text: str) -> None:
    with pytest.raises(ExpressionError, match="undeclared reference"):
        compile_question(text)
    with pytest.raises(ExpressionError, match="undeclared reference"):
        compile_filter("result.a == 1")


def test_a_question_is_bounded_by_all_that_it_reads() -> None:
    many = [{"v": number} for number in range(3000)]
    text = "result.exists(a, params.all(b, size(params) == a.v && result.exists(c, c == a)))"
    with pytest.raises(ExpressionError, match=r"is too much work for a result, with its parameters, of \d+ bytes"):
        true_of("result.exists(a, size(params.text) == a.v && params.text == string(a))", many, {"text": "x" * 200_000})
    with pytest.raises(ExpressionError):
        true_of(text, many, {str(number): number for number in range(3000)})
    with pytest.raises(ExpressionError, match=r"go through a field, such as result\.items"):
        compile_question("[1, 2 + 1].exists(a, a == 1)")

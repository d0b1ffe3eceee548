"""Cursors of lists."""

import base64
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.config import ConfigurationError
from services.chassis.errors import InvalidArgument
from services.chassis.paging import DEFAULT_LIMIT, MAX_PAGE_BYTES, Cursors, page_limit
from tests.unit.chassis.kiosk import contract

_positions = st.lists(st.text() | st.integers(-(2**63), 2**63 - 1), max_size=4)
# The machine may be busy with other things.
_quick = settings(max_examples=50, deadline=None)


@pytest.fixture
def cursors() -> Cursors:
    return Cursors(b"a key of at least sixteen bytes")


def _refused(cursors: Cursors, request: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as refusal:
        cursors.decode(request)
    assert refusal.value.reason == "CURSOR_INVALID"
    assert [violation.field for violation in refusal.value.violations] == ["cursor"]
    return refusal.value


@_quick
@given(position=_positions, topics=st.lists(st.text()))
def test_a_cursor_leads_back_to_its_position(position: list[str | int], topics: list[str]) -> None:
    messages, cursors = contract("kiosk").messages, Cursors(b"a key of at least sixteen bytes")
    cursor = cursors.encode(messages.LookRequest(topics=topics), position)
    assert cursors.decode(messages.LookRequest(topics=topics, cursor=cursor)) == position


def test_the_first_page_has_no_position(cursors: Cursors, messages: ModuleType) -> None:
    assert cursors.decode(messages.LookRequest()) is None


def test_pages_of_one_list_may_differ_in_size(cursors: Cursors, messages: ModuleType) -> None:
    cursor = cursors.encode(messages.LookRequest(limit=10), ["a"])
    second = cursors.encode(messages.LookRequest(limit=10, cursor=cursor), ["b"])
    assert cursors.decode(messages.LookRequest(limit=99, cursor=second)) == ["b"]


@_quick
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_cursor_with_any_bit_changed_is_refused(place: int, bit: int) -> None:
    messages, cursors = contract("kiosk").messages, Cursors(b"a key of at least sixteen bytes")
    raw = bytearray(base64.urlsafe_b64decode(cursors.encode(messages.LookRequest(), ["abc", 3]) + "=="))
    raw[place % len(raw)] ^= 1 << bit
    _refused(cursors, messages.LookRequest(cursor=base64.urlsafe_b64encode(raw).decode().rstrip("=")))


@_quick
@given(st.text(min_size=1))
def test_any_other_text_is_refused(text: str) -> None:
    _refused(Cursors(b"a key of at least sixteen bytes"), contract("kiosk").messages.LookRequest(cursor=text))


def test_a_truncated_cursor_is_refused(cursors: Cursors, messages: ModuleType) -> None:
    cursor = cursors.encode(messages.LookRequest(), ["abc", 3])
    for length in range(1, len(cursor)):
        _refused(cursors, messages.LookRequest(cursor=cursor[:length]))


def test_a_cursor_fits_only_the_filters_it_was_given_for(cursors: Cursors, messages: ModuleType) -> None:
    cursor = cursors.encode(messages.LookRequest(topics=["sport"]), ["abc"])
    _refused(cursors, messages.LookRequest(topics=["politics"], cursor=cursor))
    _refused(cursors, messages.LookRequest(cursor=cursor))


def test_a_cursor_fits_only_its_own_list(cursors: Cursors, messages: ModuleType) -> None:
    from baton.tasks.v1 import run_service_pb2

    cursor = cursors.encode(messages.LookRequest(), ["abc"])
    _refused(cursors, run_service_pb2.ListRunsRequest(cursor=cursor))


def test_a_cursor_of_another_key_is_refused(cursors: Cursors, messages: ModuleType) -> None:
    forged = Cursors(b"another key of sixteen bytes or more").encode(messages.LookRequest(), ["abc"])
    error = _refused(cursors, messages.LookRequest(cursor=forged))
    assert error.message == "cursor: is not a cursor of this list with these filters: start again without it"


def test_replicas_that_share_a_key_file_read_each_others_cursors(tmp_path: Path, messages: ModuleType) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    cursor = Cursors.from_file(tmp_path / "key").encode(messages.LookRequest(), [1])
    assert Cursors.from_file(tmp_path / "key").decode(messages.LookRequest(cursor=cursor)) == [1]


def test_a_key_that_is_no_secret_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="holds 0 bytes"):
        Cursors.from_file(tmp_path / "key")


def test_the_page_is_as_large_as_asked_for(messages: ModuleType) -> None:
    assert page_limit(messages.LookRequest()) == DEFAULT_LIMIT == 50
    assert page_limit(messages.LookRequest(limit=7)) == 7


def test_one_row_too_many_says_that_there_is_more(cursors: Cursors, messages: ModuleType) -> None:
    request = messages.LookRequest(limit=2)
    items, cursor = cursors.page(request, ["a", "b", "c"], _text, str)
    assert [item.value for item in items] == ["a", "b"]
    assert cursors.decode(messages.LookRequest(limit=2, cursor=cursor)) == ["b"]


@pytest.mark.parametrize("rows", [[], ["a"], ["a", "b"]])
def test_the_last_page_has_no_cursor(cursors: Cursors, messages: ModuleType, rows: list[str]) -> None:
    assert cursors.page(messages.LookRequest(limit=2), rows, _text, str) == ([_text(row) for row in rows], None)


def test_a_page_ends_before_it_is_too_large_for_one_answer(cursors: Cursors, messages: ModuleType) -> None:
    large = "x" * (MAX_PAGE_BYTES // 2)
    items, cursor = cursors.page(
        messages.LookRequest(limit=3), [large + "1", large + "2", "3"], _text, lambda row: row[-1]
    )
    assert [item.value[-1] for item in items] == ["1"]
    assert cursor is not None
    alone = cursors.page(messages.LookRequest(limit=3), [large * 4], _text, str)
    assert len(alone[0]) == 1, "a thing that is too large by itself still has a page"
    assert alone[1] is None


def _text(value: str) -> StringValue:
    return StringValue(value=value)

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.pipeline.errors import PipelineError, TemplateError
from services.pipeline.templates import MAX_RENDERED_BYTES, compile_template, render

CONTEXT: dict[str, Any] = {
    "now": "2026-03-01T05:00:00Z",
    "params": {"count": 3, "ratio": 0.5, "nothing": None, "on": True, "a b": 1, "text": "x"},
    "steps": {
        "clock": {"datetime": "2026-03-01T07:00:00+02:00", "timezone": "Europe/Chisinau"},
        "rows": [{"id": 1, "tag": "a"}, {"id": 2}],
        "empty": [],
    },
    "run": {"id": "r", "attempt": 1, "created_at": "2026-03-01T05:00:00Z"},
    "task": {"id": "t", "title": "briefing"},
}


def rendered(text: str) -> Any:
    return render({"value": text}, CONTEXT)["value"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${params.count}", 3),
        ("${ params.count }", 3),
        ("${params.ratio}", 0.5),
        ("${params.on}", True),
        ("${params.nothing}", None),
        ("${steps.clock}", CONTEXT["steps"]["clock"]),
        ("${steps.rows[-1].id}", 2),
        ('${params."a b"}', 1),
        ('${`{"a": [1, null]}`}', {"a": [1, None]}),
    ],
)
def test_a_string_that_is_one_expression_keeps_the_type_of_its_value(text: str, value: Any) -> None:
    assert rendered(text) == value
    assert type(rendered(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("at ${now}", "at 2026-03-01T05:00:00Z"),
        ("${params.count} of ${params.ratio}", "3 of 0.5"),
        (" ${params.count}", " 3"),
        ("on: ${params.on}", "on: true"),
        ("rows: ${steps.rows}", 'rows: [{"id":1,"tag":"a"},{"id":2}]'),
        ("${params.text}${params.text}", "xx"),
    ],
)
def test_inside_text_values_are_written_out(text: str, value: str) -> None:
    assert rendered(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$${params.count}", "${params.count}"),
        ("$$${params.count}", "$${params.count}"),
        ("costs $5 {or so}", "costs $5 {or so}"),
        ("$", "$"),
        ("$${", "${"),
        ("$${${params.count}}", "${3}"),
    ],
)
def test_an_escaped_opening_is_literal_text(text: str, value: str) -> None:
    assert rendered(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${'x}'}", "x}"),
        ("${ {a: params.count, b: {c: 'y'}} }", {"a": 3, "b": {"c": "y"}}),
        ('${`{"a": "}"}`}', {"a": "}"}),
        ("${'it\\'s }'}-", "it's }-"),
        ("${steps.rows[?tag == 'a'].{i: id}}", [{"i": 1}]),
    ],
)
def test_braces_inside_an_expression_do_not_end_it(text: str, value: Any) -> None:
    assert rendered(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${steps.clock.datetme}", "steps.clock.datetme is missing: steps.clock has datetime, timezone"),
        ("at ${steps.clock.datetme}", "steps.clock.datetme is missing: steps.clock has datetime, timezone"),
        ("${steps.skipped.a.b}", "steps.skipped is missing: steps has clock, empty, rows"),
        ("${steps.rows[5].id}", "steps.rows[5] is missing: steps.rows is a list of 2"),
        ("${steps.rows[0].nope}", "steps.rows[0].nope is missing: steps.rows[0] has id, tag"),
        ("${params.nothing.more}", "params.nothing.more is missing: params.nothing is null"),
        ("${steps.clock[*]}", "steps.clock[*] is missing: steps.clock has datetime, timezone"),
        ("${ {a: steps.clock.nope} }", "steps.clock.nope is missing: steps.clock has datetime, timezone"),
        ("${length(steps.clock.nope)}", "steps.clock.nope is missing: steps.clock has datetime, timezone"),
        ("is ${params.nothing}", "params.nothing is null, which has no place inside text"),
    ],
)
def test_what_is_missing_is_an_error_that_names_the_path(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        rendered(text)
    assert str(caught.value) == f"with.value: {message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${steps.clock.nope || 'none'}", "none"),
        ("${steps.nope.x || params.count}", 3),
        ("${not_null(steps.nope, params.nothing, 'last')}", "last"),
        ("${steps.rows[].tag}", ["a"]),
        ("${steps.rows[].{id: id, tag: tag}}", [{"id": 1, "tag": "a"}, {"id": 2, "tag": None}]),
        ("${steps.rows[?tag] | [0].id}", 1),
        ("${steps.clock.nope == `null`}", True),
        ("${!steps.clock.nope}", True),
        ("${[steps.clock.nope, 'x'] == [params.nothing, 'x']}", True),
    ],
)
def test_what_is_missing_counts_as_null_inside_an_expression(text: str, value: Any) -> None:
    assert rendered(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${steps.clock.datetime[11:16]}", "07:00"),
        ("${steps.clock.datetime[:4]}", "2026"),
        ("${steps.clock.datetime[-6:]}", "+02:00"),
        ("${now[:10] | reverse(@)}", "10-30-6202"),
        ("${steps.rows[:1]}", [{"id": 1, "tag": "a"}]),
    ],
)
def test_strings_are_sliced_like_lists(text: str, value: Any) -> None:
    assert rendered(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "${}",
        "${ }",
        "${now",
        "${'x}",
        "${now+24h}",
        "${params.count > 5}",
        "${`nan`}",
        "${nope()}",
        "${length()}",
        "${&a}",
    ],
)
def test_an_expression_that_cannot_be_read_or_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        rendered(text)


def test_keys_are_not_rendered_and_other_values_are_kept() -> None:
    value = {"${now}": [1, None, {"deep": "${params.count}"}], "flag": False}
    assert render(value, CONTEXT) == {"${now}": [1, None, {"deep": 3}], "flag": False}


def test_an_error_names_the_string_it_is_in() -> None:
    with pytest.raises(TemplateError, match=r'^with\.a\[1\]\["x y"\]: '):
        render({"a": ["", {"x y": "${steps.none}"}]}, CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "${" + " | ".join(["[@,@]"] * 60) + "}",
        "${[now,now] | " + " | ".join(["[[@,@][], @[]] | []"] * 40) + "}",
        "${now | " + " | ".join(["join(@, [@,@,@,@])"] * 30) + "}",
        "${" + " | ".join(["to_string([@,@,@])"] * 40) + "}",
        "${[@,@] | " + " | ".join(["{a: @, b: @}"] * 60) + " == `1`}",
    ],
)
def test_a_short_expression_cannot_stand_for_endless_work(text: str) -> None:
    with pytest.raises(TemplateError, match="too large"):
        rendered(text)


def test_the_rendered_input_is_bounded() -> None:
    big = {"params": {"big": "x" * (MAX_RENDERED_BYTES // 4)}}
    assert len(render(["${params.big}"] * 3, big)) == 3
    with pytest.raises(TemplateError, match="with: rendered it has 1310736 bytes, at most 1048576"):
        render(["${params.big}"] * 5, big)


def test_a_deeply_nested_expression_is_refused() -> None:
    with pytest.raises(TemplateError):
        rendered("${" + "(" * 2000 + "now" + ")" * 2000 + "}")


_PIECES = st.sampled_from(
    ["${", "}", "$${", "{", "'", '"', "`", "\\", "[", "]", "(", ")", "|", "||", "&", "!", ".", ",", ":", "*", "@", "?",
     "steps", "rows", "clock", "params", "count", "now", "length", "join", "map", "sort_by", "merge", "to_number",
     " ", "0", "-1", "5", "==", "<", "id", "null", "1e999", "\ud800", "é"]
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(_PIECES, max_size=14).map("".join), _JSON)
@example("${merge(steps, 'x')}", None)
@example("${merge(@, now)}", None)
@example("${contains(now, `1`)}", None)
@example("${to_number('1e999')}", None)
@example('${`"\\ud800"`}', None)
def test_rendering_fails_only_with_errors_of_the_pipeline(text: str, value: Any) -> None:
    context = {**CONTEXT, "params": {"count": value}}
    for template in (text, "${" + text + "}"):
        with suppress(PipelineError):
            render({"value": template}, context)


@given(st.text(st.characters(exclude_characters="$")))
def test_text_without_a_dollar_is_itself(text: str) -> None:
    assert compile_template(text).parts == (text,)


@given(st.text(max_size=20), st.text(alphabet="ab{}'\\`\"", max_size=12))
def test_a_raw_string_comes_through_whatever_it_holds(around: str, raw: str) -> None:
    around = around.replace("$", "")
    raw = raw.replace("\\", "")
    quoted = raw.replace("'", "\\'")
    if around.isascii():
        assert render(f"{around}${{'{quoted}'}}-", {}) == f"{around}{raw}-"

"""Secrets in pipelines: names only, until somebody reveals them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pipeline import canonical
from services.pipeline.definition import check
from services.pipeline.errors import TemplateError
from services.pipeline.revealing import MAX_REVEALED_CHARACTERS, read_text, refers_to_secrets, reveal
from services.pipeline.secrets import SecretText
from services.pipeline.sketch import sketch
from services.pipeline.templates import render

VALUES = {"token": "abc-123", "user": "joe"}
CONTEXT: dict[str, Any] = {
    "now": "",
    "params": {"n": 3, "forged": "${secrets.token}", "list": ["${secrets.token}"]},
    "steps": {},
    "run": {},
    "task": {},
}


def lookup(name: str) -> str:
    try:
        return VALUES[name]
    except KeyError:
        raise TemplateError(f"there is no secret {name}") from None


def rendered(value: Any) -> Any:
    return render({"value": value}, CONTEXT)["value"]


@pytest.mark.parametrize(
    ("text", "shown", "revealed"),
    [
        ("${secrets.token}", "${secrets.token}", "abc-123"),
        ("${ secrets.token }", "${secrets.token}", "abc-123"),
        ('${secrets."token"}', "${secrets.token}", "abc-123"),
        ("Bearer ${secrets.token}", "Bearer ${secrets.token}", "Bearer abc-123"),
        ("${secrets.user}:${secrets.token}", "${secrets.user}:${secrets.token}", "joe:abc-123"),
        ("${params.n} ${secrets.user} $${x}", "3 ${secrets.user} ${x}", "3 joe ${x}"),
    ],
)
def test_a_reference_reads_as_it_is_written_until_it_is_revealed(text: str, shown: str, revealed: str) -> None:
    value = rendered(text)
    assert value == shown
    assert reveal({"a": [value]}, lookup) == {"a": [revealed]}


def test_what_is_revealed_is_plain_text() -> None:
    assert type(reveal({"a": rendered("${secrets.token}")}, lookup)["a"]) is str


@pytest.mark.parametrize("text", ["$${secrets.token}", "${params.forged}", "x ${params.forged}", "${params.list}"])
def test_text_that_only_looks_like_a_reference_is_none(text: str) -> None:
    value = rendered(text)
    assert not refers_to_secrets(value)
    assert reveal([value], lookup) == [value]


def test_a_forged_reference_beside_a_real_one_stays_text() -> None:
    assert reveal(rendered("${params.forged} ${secrets.user}"), lookup) == "${secrets.token} joe"


def test_the_digest_of_an_input_is_that_of_its_shown_form() -> None:
    value = render({"a": "Bearer ${secrets.token}"}, CONTEXT)
    assert canonical.digest(value) == canonical.digest({"a": "Bearer ${secrets.token}"})
    assert canonical.digest(value) != canonical.digest(reveal(value, lookup))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("${secrets}", "no expression reads secrets: in the strings of a `with`, ${secrets.NAME} stands for one"),
        ("${secrets.a || 'x'}", "no expression reads secrets"),
        ("${length(secrets.a)}", "no expression reads secrets"),
        ("${[secrets.a]}", "no expression reads secrets"),
        ("${{a: secrets.a}}", "no expression reads secrets"),
        ("${secrets.a.b}", "no expression reads secrets"),
        ("${secrets.a[0:2]}", "no expression reads secrets"),
        ("${@.secrets.a}", "no expression reads secrets"),
        ("${(secrets).a}", None),
        ("${secrets | a}", "no expression reads secrets"),
        ('${secrets."a-b"}', "'a-b' is no secret's name, which has 1 to 64 letters, digits and underscores"),
        ('${secrets."1a"}', "'1a' is no secret's name"),
        (f"${{secrets.{'a' * 65}}}", "is no secret's name"),
        ("x ${secrets.a} ${params.no}", "params.no is not in payload.params"),
        (f"${{secrets.{'a' * 64}}}", None),
        ("${secrets.a}", None),
    ],
)
def test_any_other_use_is_refused_when_the_task_is_created(text: str, fault: str | None) -> None:
    problems = check({"pipeline": [{"uses": "a.b", "with": {"x": [text]}}]})
    assert [problem.field for problem in problems] == (["payload.pipeline[0].with.x[0]"] if fault else [])
    assert not fault or fault in problems[0].description


@pytest.mark.parametrize("text", ["secrets.a", "secrets.a == 'x'", "!secrets.a", "contains(secrets.a, 'x')"])
def test_a_condition_reads_no_secrets(text: str) -> None:
    (problem,) = check({"pipeline": [{"uses": "a.b", "if": text}]})
    assert (problem.field, "no expression reads secrets" in problem.description) == ("payload.pipeline[0].if", True)


@pytest.mark.parametrize("text", ["${values(@)}", "${@}", "${keys(@)}"])
def test_no_expression_comes_upon_a_secret(text: str) -> None:
    assert "secrets" not in str(rendered(text)).replace("${secrets.token}", "")


def test_a_sketch_shows_references_as_they_are_written_and_known() -> None:
    step = {"uses": "a.b", "with": {"one": "${secrets.token}", "two": "${params.n}: ${secrets.nobody_knows}"}}
    (shown,) = sketch({"pipeline": [step]}, CONTEXT)
    assert shown.with_ == {"one": "${secrets.token}", "two": "3: ${secrets.nobody_knows}"}
    assert shown.unresolved == []


def test_a_secret_that_cannot_be_had_is_named_with_its_place() -> None:
    value = render({"headers": {"a b": ["x", "${secrets.other}"]}}, CONTEXT)
    with pytest.raises(TemplateError) as caught:
        reveal(value, lookup)
    assert str(caught.value) == 'with.headers["a b"][1]: there is no secret other'


def test_few_letters_cannot_become_endless_text() -> None:
    value = render({"a": ["${secrets.token}"] * 5}, CONTEXT)
    assert len(reveal(value, lambda name: "x" * (MAX_REVEALED_CHARACTERS // 5))["a"]) == 5
    with pytest.raises(TemplateError, match=r"with\.a\[4\]: the secrets have more than"):
        reveal(value, lambda name: "x" * (MAX_REVEALED_CHARACTERS // 5 + 1))


@pytest.mark.parametrize(
    ("text", "revealed"),
    [
        ("plain", "plain"),
        ("a$b", "a$b"),
        ("$${x}", "${x}"),
        ("${secrets.user}", "joe"),
        ("-${ secrets.user }-", "-joe-"),
    ],
)
def test_a_text_may_refer_to_secrets_alone(text: str, revealed: str) -> None:
    assert reveal(read_text(text), lookup) == revealed


@pytest.mark.parametrize(
    "text", ["${HOME}", "${'hunter22'}", "hunter22${", "${secrets.a.b}", '${secrets."a-b"}', "${}"]
)
def test_another_template_in_a_text_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        read_text(text, "env.KEY")
    assert str(caught.value).startswith("env.KEY: may hold no other template than ${secrets.NAME}")
    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None


_NAMES = st.sampled_from(["token", "user"])
_PARTS = st.lists(st.one_of(st.text(max_size=6), _NAMES.map(lambda name: ("secret", name))), min_size=1, max_size=6)


@given(_PARTS)
def test_revealing_replaces_references_and_nothing_else(parts: list[Any]) -> None:
    written = "".join(
        f"${{secrets.{part[1]}}}" if isinstance(part, tuple) else part.replace("${", "$${") + " " for part in parts
    )
    expected = "".join(VALUES[part[1]] if isinstance(part, tuple) else part + " " for part in parts)
    value = rendered(written)
    assert isinstance(value, SecretText) == any(isinstance(part, tuple) for part in parts)
    assert reveal(value, lookup) == expected

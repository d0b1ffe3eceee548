"""The requests in the documentation are ones that the gateway takes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def requests(page: Path) -> list[str]:
    """Its calls of curl, each with all of its lines."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [call for block in blocks for call in re.findall(r"\bcurl (?:[^\n]*\\\n)*[^\n]*", block)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_body_is_sent_as_json(page: Path) -> None:
    """curl calls what follows `-d` a form, which is answered with 415."""
    for call in requests(page):
        assert not re.search(r" (-d|--data\S*) ", call) or "Content-Type: application/json" in call


def test_requests_are_found() -> None:
    assert any("/events" in call for call in requests(ROOT / "docs" / "events.md"))

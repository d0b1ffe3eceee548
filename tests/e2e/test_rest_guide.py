"""docs/rest.md, run as its reader runs it: every block, top to bottom, in one shell."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.test_readme import blocks
from tests.e2e.test_readme import run as run_blocks
from tests.support.baton import ROOT, Baton


@pytest.mark.timeout(180)
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="the guide is for a shell with curl")
def test_the_guide_does_what_it_says(baton: Baton, tmp_path: Path) -> None:
    outputs = run_blocks(blocks((ROOT / "docs" / "rest.md").read_text(), "sh"), baton, tmp_path)
    known, created, faulty, once, listed, counted, versions, files, events = outputs
    assert (known, created, once) == ("200\n", "Say hello\n", "one run\n")

    problem = json.loads(faulty)
    assert (problem["status"], problem["reason"]) == (400, "INVALID_ARGUMENT")
    assert {error["field"] for error in problem["errors"]} >= {"title"}

    assert len(set(listed.split())) == len(listed.split()) == 3
    total, sessions = map(int, counted.split())
    assert total == 3
    assert sessions >= 0
    assert versions.split() == ["200", "409"]

    assert files.splitlines() == ["task,attempt", "Say hello,1", "Say hello Say hello"]

    told = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")]
    assert (told[0]["run"], told[0]["resync"]) == (None, False)
    watched = (tmp_path / "events").read_text()
    assert watched.count("\ndata: ") >= 2
    assert f"id: {told[0]['position']}\n" in watched

"""The files that the signing key lives in."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import orjson
import pytest

from services.chassis.config import ConfigurationError
from services.sessions.keys import ensure_keys


@pytest.fixture
def private(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "signing-key.json"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "public" / "jwks.json"


def test_a_key_is_made_once_and_kept(private: Path, public: Path) -> None:
    first = ensure_keys(private, public)
    content = private.read_bytes(), public.read_bytes()
    assert ensure_keys(private, public).kid == first.kid
    assert (private.read_bytes(), public.read_bytes()) == content


def test_only_the_owner_reads_the_private_key_and_everybody_the_public_one(private: Path, public: Path) -> None:
    key = ensure_keys(private, public)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    (published,) = orjson.loads(public.read_bytes())["keys"]
    assert published["kid"] == key.kid
    assert "d" not in published
    # Nothing half written stays behind.
    assert [path.name for path in (*private.parent.iterdir(), *public.parent.iterdir())] == [private.name, public.name]


def test_twenty_starters_end_with_one_key(private: Path, public: Path) -> None:
    together = Barrier(20)

    def start() -> str | None:
        together.wait()
        return ensure_keys(private, public).kid

    with ThreadPoolExecutor(20) as threads:
        kids = {start.result() for start in [threads.submit(start) for _ in range(20)]}
    assert len(kids) == 1
    assert [key["kid"] for key in orjson.loads(public.read_bytes())["keys"]] == list(kids)


def test_a_lost_or_foreign_public_file_is_written_anew(private: Path, public: Path) -> None:
    ensure_keys(private, public)
    content = public.read_bytes()
    public.unlink()
    ensure_keys(private, public)
    assert public.read_bytes() == content
    public.write_text('{"keys": []}')
    ensure_keys(private, public)
    assert public.read_bytes() == content


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"kty": "oct", "k": "c2VjcmV0"}'])
def test_a_file_without_a_key_stops_the_start_and_is_not_replaced(private: Path, public: Path, content: str) -> None:
    private.parent.mkdir()
    private.write_text(content)
    with pytest.raises(ConfigurationError, match="BATON_SIGNING_KEY_FILE"):
        ensure_keys(private, public)
    assert private.read_text() == content


def test_the_public_half_is_not_taken_for_the_key(private: Path, public: Path) -> None:
    ensure_keys(private, public)
    (half,) = orjson.loads(public.read_bytes())["keys"]
    private.write_bytes(orjson.dumps(half))
    with pytest.raises(ConfigurationError):
        ensure_keys(private, public)

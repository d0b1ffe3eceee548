"""The URLs that services connect with."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from migrations import address
from migrations.errors import UnusableAddress
from migrations.logins import service_url

_SECRET = bytes(range(32))


def test_on_postgresql_a_service_has_a_login_and_a_password_of_its_own() -> None:
    urls = {
        context: make_url(service_url("postgresql://admin:pw@db:5433/baton?sslmode=require", context, _SECRET))
        for context in ("sessions", "tasks")
    }
    assert urls["tasks"].username == "baton_tasks"
    assert (urls["tasks"].host, urls["tasks"].port, urls["tasks"].database) == ("db", 5433, "baton")
    assert urls["tasks"].query == {"sslmode": "require"}
    assert urls["tasks"].password not in (None, "pw", urls["sessions"].password)


@pytest.mark.parametrize("url", ["postgresql://admin:pw@db/baton", "postgresql://admin@db/baton?password=pw"])
def test_the_administrators_password_is_in_no_services_url(url: str) -> None:
    assert "pw" not in service_url(url, "tasks")
    assert "=pw" not in service_url(url, "tasks", _SECRET)


def test_the_password_is_the_documented_one() -> None:
    # base64url(HMAC-SHA256(0x00..0x1f, "baton_tasks")), computed with openssl
    assert (
        make_url(service_url("postgresql://db/baton", "tasks", _SECRET)).password
        == "6yVrqOwt6_05Vm2qOM0eZIf7kBaEXMYQ87YlCEvYFeA"
    )


def test_on_sqlite_a_service_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert service_url(f"sqlite:///{tmp_path}", "tasks", _SECRET) == f"sqlite:///{tmp_path}/tasks.db"
    assert service_url("sqlite:///.baton", "tasks") == "sqlite:///.baton/tasks.db"


def test_short_and_driver_forms_of_the_scheme_mean_postgresql() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert service_url(f"{scheme}://db/baton", "tasks") == "postgresql://baton_tasks@db/baton"


def test_a_database_name_that_leaves_no_room_for_logins_is_refused() -> None:
    with pytest.raises(UnusableAddress, match="at most 53 bytes"):
        service_url(f"postgresql://db/{'x' * 54}", "workflows")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").touch()
    with pytest.raises(UnusableAddress, match="is a file"):
        service_url(f"sqlite:///{tmp_path / 'tasks.db'}", "tasks")


def test_secrets_are_masked_wherever_they_stand() -> None:
    url = address.parse("postgresql://baton:a%2Fb@db/baton?password=c+d&sslpassword=efg")
    assert address.shown(url) == "postgresql://baton:***@db/baton?password=%2A%2A%2A&sslpassword=%2A%2A%2A"
    assert address.without_secrets("a/b a%2Fb c d c+d efg", url) == "*** *** *** *** ***"

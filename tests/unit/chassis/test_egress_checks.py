"""What is refused of URLs before anybody asks where their names lead."""

import pytest

from services.chassis.egress import allowed
from services.chassis.egress.guard import Guard
from tests.support.resolver import FakeResolver


@pytest.mark.parametrize(
    ("allow", "url", "passes"),
    [
        ("", "https://hooks.example/x", True),
        ("", "https://8.8.8.8/x", True),
        ("", "http://hooks.example/x", False),
        ("", "http://8.8.8.8/x", False),
        ("", "https://10.0.0.1/x", False),
        ("", "https://[::1]/x", False),
        ("loopback", "http://127.0.0.1:8080/x", True),
        ("loopback", "http://[::1]:8080/x", True),
        ("loopback", "http://10.0.0.1/x", False),
        ("loopback", "http://localhost:8080/x", True),  # where it leads is judged when it is asked for
        ("hooks.internal", "http://hooks.internal/x", True),
        ("hooks.internal", "http://other.internal/x", False),
        ("hooks.internal:8080", "http://hooks.internal:8080/x", True),
        ("hooks.internal:8080", "http://hooks.internal/x", False),
        ("10.1.0.0/16", "https://10.1.2.3/x", True),
        ("10.1.0.0/16", "https://10.2.2.3/x", False),
    ],
)
def test_a_url_is_judged_by_what_is_written_in_it(allow: str, url: str, passes: bool) -> None:
    resolver = FakeResolver()
    guard = Guard(allowed.parse(allow), resolver)
    fault = guard.fault(url)
    assert fault == "" if passes else "only public addresses over https" in fault
    assert not resolver.asked

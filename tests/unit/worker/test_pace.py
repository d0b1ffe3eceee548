"""How fast tool servers are listened to."""

from services.worker.tools.pace import Allowance


def test_so_much_at_once_and_then_so_much_a_second() -> None:
    now = 0.0
    allowance = Allowance(10, 2, clock=lambda: now)
    assert [allowance.spend(5) for _ in range(3)] == [0, 0, 2.5]
    now = 2.5
    assert allowance.spend(0) == 0
    assert allowance.spend(1) == 0.5
    now = 1000.0
    assert [allowance.spend(10), allowance.spend(1)] == [0, 0.5]


def test_what_was_asked_for_does_not_count() -> None:
    allowance = Allowance(10, 1, clock=lambda: 0.0)
    for _ in range(100):
        allowance.grant(5)
        assert allowance.spend(5) == 0
    allowance.grant(1000)
    assert allowance.spend(11) == 1

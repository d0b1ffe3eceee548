from types import ModuleType

import pytest

from tests.unit.chassis.kiosk import contract


@pytest.fixture(scope="session")
def messages() -> ModuleType:
    """The messages of the kiosk."""
    return contract("kiosk").messages

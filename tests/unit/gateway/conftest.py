from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.unit.gateway.garden import TOKEN, Contract, Garden, compile_contract, open_garden


@pytest.fixture(scope="session")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return compile_contract(tmp_path_factory.mktemp("greenhouse"))


@pytest.fixture
async def garden(contract: Contract) -> AsyncIterator[Garden]:
    async with open_garden(contract) as opened:
        yield opened


@pytest.fixture
async def client(garden: Garden) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody with a good token."""
    transport = httpx2.ASGITransport(garden.app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as opened:
        yield opened

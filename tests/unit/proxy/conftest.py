import pytest

from tests.unit.proxy.kit import House


@pytest.fixture
def house() -> House:
    return House()

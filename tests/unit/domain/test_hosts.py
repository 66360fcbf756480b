"""A host name is the same however a client writes it."""

import pytest

from domain import hosts


@pytest.mark.parametrize("sent", ["api.lab.example", "API.LAB.example", "api.lab.example.", " api.lab.example:443 "])
def test_one_name(sent: str) -> None:
    assert hosts.named(sent) == "api.lab.example"


@pytest.mark.parametrize("sent", ["", ":80", "[::1]:80", "api.lab.example..", "api.lab.example:x", "a b.example"])
def test_what_is_nobodys_name(sent: str) -> None:
    assert not hosts.is_name(hosts.named(sent))

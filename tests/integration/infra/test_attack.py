"""The short form of `./run attack`: every attacker a process of its own, and nobody is stopped."""

from pathlib import Path

import pytest

from infra.attack import attackers
from infra.attack.__main__ import attack, judge
from infra.attack.scene import scene


@pytest.mark.long
def test_an_innocent_tenant_is_served_beside_all_attackers_at_once(tmp_path: Path) -> None:
    assert attack(tmp_path, 30) == 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["flood", "trailers", "resets", "held"])
def test_strangers_and_endless_streams_hold_nobody_up(tmp_path: Path, name: str) -> None:
    """Without a key, and a stream that is always ready whose client leaves: each by itself, from another process."""
    assert name in attackers.ATTACKS
    with scene(tmp_path) as running:
        with running.attacked([name], 60):
            seen = running.serve_innocent(10, 20)
        assert (seen["failed"], seen["answered"]) == ([], 200)
        assert running.memory_mib() < 400
        assert running.reconciled() == 0


def test_a_server_that_stays_as_it_was_holds() -> None:
    assert not judge([100.0, 300.0, 200.0, 250.0, 300.0, 280.0], [50, 900, 700, 800, 900, 850], [])


def test_growth_and_refusals_are_named() -> None:
    memory = judge([100.0, 100.0, 100.0, 100.0, 185.0, 100.0], [50] * 6, [])
    assert memory == ["memory grew to 185 MiB, 184 were allowed"]
    assert judge([100.0] * 6, [50, 50, 50, 50, 50, 261], []) == ["descriptors grew to 261"]
    refused = judge([100.0], [50], ["HTTP/1.1 503 Service Unavailable", "TimeoutError", "TimeoutError"])
    assert refused == ["the innocent tenant was refused 3 times: HTTP/1.1 503 Service Unavailable, TimeoutError"]

"""What `./run attack` looks at, and the attackers beside whom an innocent tenant must be served."""

from pathlib import Path

import pytest

from infra.attack.__main__ import judge, judge_descriptors
from infra.attack.scene import scene


@pytest.mark.long
def test_an_innocent_tenant_is_served_beside_one_at_his_bounds(tmp_path: Path) -> None:
    """Each attacker is a process of its own: on the server's event loop it would hide what it does."""
    with scene(tmp_path) as running:
        for name in ("held", "slowly", "slow_answers", "bodies", "answers", "nested"):
            with running.attacked([name], 60):
                seen = running.serve_innocent(5, 20)
            assert (name, seen["failed"], seen["answered"]) == (name, [], 100)
            assert running.memory_mib() < 600, name
        assert running.reconciled() == 0


def test_a_server_that_stays_as_it_was_holds() -> None:
    assert not judge([100.0, 300.0, 200.0, 250.0, 300.0, 280.0], [])
    assert not judge_descriptors(4000, 10)


def test_growth_and_refusals_are_named() -> None:
    memory = judge([100.0, 100.0, 100.0, 100.0, 185.0, 100.0], [])
    assert memory == ["memory grew to 185 MiB, 184 were allowed"]
    refused = judge([100.0], ["HTTP/1.1 503 Service Unavailable", "TimeoutError", "TimeoutError"])
    assert refused == ["the innocent tenant was refused 3 times: HTTP/1.1 503 Service Unavailable, TimeoutError"]


def test_descriptors_beyond_the_attackers_and_those_that_stay_are_named() -> None:
    assert judge_descriptors(100_000, 0)[0].startswith("100000 descriptors were open")
    assert judge_descriptors(4000, 11) == ["11 descriptors were left open"]

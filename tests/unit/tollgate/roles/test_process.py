"""How many clients a process may have, of the files that it may open."""

import resource

import pytest

from tollgate.roles import process


@pytest.mark.parametrize(
    ("soft", "hard", "files"),
    [(1024, 4096, 4096), (4096, 4096, 4096), (1024, resource.RLIM_INFINITY, 128 * 1024)],
)
def test_the_soft_limit_is_raised_to_the_hard_one(
    soft: int, hard: int, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert process._open_files() == files
    assert raised == [(hard, hard)] * (soft != hard)


@pytest.mark.parametrize(("files", "connections"), [(64, 16), (1024, 448), (20_000, 9936), (10**9, 65_472)])
def test_each_client_has_a_file_left_for_its_upstream(files: int, connections: int) -> None:
    assert process._max_connections(files) == connections

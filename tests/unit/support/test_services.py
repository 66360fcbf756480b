"""Where a test's services are looked for, in which order, and what a test says that has none."""

import os
from contextlib import ExitStack

import pytest

from infra.local import install
from infra.local.process import LocalError
from tests.support import services
from tests.support.services import Finder, Way


class Ways:
    """Two ways to a service; those that are `missing` cannot be had. Notes which were tried."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.tried: list[str] = []

    def both(self) -> list[Way]:
        return [self.way("docker"), self.way("local")]

    def way(self, name: str) -> Way:
        def start(stack: ExitStack) -> str:
            self.tried.append(name)
            if name in self.missing:
                raise LocalError(f"no {name}")
            return f"{name}:1"

        return start


def found(ways: Ways, given: str | None = None, answering: tuple[str, ...] = ("given:1", "docker:1", "local:1")) -> str:
    with ExitStack() as stack:
        return services.find("Kafka", given, ways.both(), lambda address: address in answering, stack, within_s=0)


def test_the_environments_address_comes_first() -> None:
    ways = Ways()
    assert found(ways, "given:1") == "given:1"
    assert not ways.tried


def test_docker_comes_before_a_local_start() -> None:
    ways = Ways()
    assert found(ways) == "docker:1"
    assert ways.tried == ["docker"]


def test_a_local_start_comes_where_docker_is_missing() -> None:
    ways = Ways("docker")
    assert found(ways) == "local:1"
    assert ways.tried == ["docker", "local"]


def test_a_local_start_comes_where_a_container_does_not_answer() -> None:
    assert found(Ways(), answering=("local:1",)) == "local:1"


def test_an_address_that_does_not_answer_is_an_error_and_nothing_else_is_tried() -> None:
    ways = Ways()
    with pytest.raises(LocalError, match="Kafka does not answer at wrong:1, which the environment names"):
        found(ways, "wrong:1")
    assert not ways.tried


def test_where_nothing_works_every_reason_is_named() -> None:
    with pytest.raises(LocalError, match="there is no Kafka for this test: no docker; no local"):
        found(Ways("docker", "local"))


def test_a_service_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = Ways("docker", "local")
    monkeypatch.setitem(services.FINDERS, "kafka", Finder("VARIABLE", "Kafka", ways.both(), bool))
    run = services.Services({})
    for _ in range(2):
        with pytest.raises(LocalError):
            run.address("kafka")
    assert ways.tried == ["docker", "local"]


def test_each_service_has_a_variable_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, finder in list(services.FINDERS.items()):
        monkeypatch.setitem(services.FINDERS, name, finder._replace(answers=bool))
    run = services.Services(
        {
            "TOLLGATE_TEST_KAFKA_BOOTSTRAP": "a:1",
            "TOLLGATE_TEST_DATABASE_URL": "postgresql://b",
            "TOLLGATE_TEST_REDIS_URL": "redis://c",
        }
    )
    assert [run.address(name) for name in ("kafka", "postgres", "redis")] == ["a:1", "postgresql://b", "redis://c"]


def test_the_line_to_type_names_all_that_any_service_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.CHECKS, "kafka", lambda: ["a-java", "maven"])
    monkeypatch.setitem(install.CHECKS, "postgres", list)
    monkeypatch.setitem(install.CHECKS, "redis", lambda: ["redis-server"])
    line = "this machine lacks a-java and maven; type: sudo apt-get install a-java maven redis-server"
    with pytest.raises(LocalError, match=line):
        install.ensure("kafka", install=False)


def test_a_service_that_lacks_nothing_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.CHECKS, "redis", list)
    install.ensure("redis", install=False)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ("no such thing", 0),
    ],
)
def test_javas_version_is_read_as_it_was_said_over_the_years(said: str, version: int) -> None:
    assert install.feature_version(said) == version


def test_nobody_installs_who_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(install.CHECKS, "redis", lambda: ["redis-server"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(install, "_apt_install", lambda packages: pytest.fail("it did"))
    with pytest.raises(LocalError, match="type: sudo apt-get install"):
        install.ensure("redis", install=True)

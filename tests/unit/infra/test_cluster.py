"""What `./run cluster` starts, where its processes are found again, and what it tells the person at the terminal."""

from pathlib import Path

import pytest

from infra import cluster
from infra.local import parts, process


def test_an_installation_has_every_role_and_two_of_what_may_be_lost() -> None:
    names = [part.name for part in parts.parts(Path("data"))]
    assert names == ["control-1", "proxy-1", "proxy-2", "metering-1", "metering-2", "webhooks-1", "webhooks-2"]


def test_a_process_gets_a_directory_of_its_own_and_a_public_port_only_where_it_has_one() -> None:
    proxy, metering = (parts.parts(Path("data"), {role: 1})[0] for role in ("proxy", "metering"))
    serve = ["serve", "proxy", "--data", "data/proxy-1", "--port", "7", "--ops-port", "0", "--json"]
    assert proxy.words(7) == serve
    assert metering.words(7) == ["serve", "metering", "--data", "data/metering-1", "--ops-port", "0", "--json"]


def test_a_port_is_kept_over_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [5, 6, 7]
    monkeypatch.setattr(process, "free_ports", lambda count: free[:count])
    monkeypatch.setattr(process, "is_free", lambda port: port in free)
    ports = cluster.Ports(tmp_path / "ports.json")
    assert (ports.of("kafka"), ports.of("postgres"), ports.of("kafka")) == (5, 6, 5)
    assert cluster.Ports(tmp_path / "ports.json").of("postgres") == 6


def test_a_port_that_somebody_took_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "free_ports", lambda count: [5, 6, 7][:count])
    monkeypatch.setattr(process, "is_free", lambda port: False)
    ports = cluster.Ports(tmp_path / "ports.json")
    assert (ports.of("kafka"), ports.of("kafka")) == (5, 6)


def shown(*, is_new: bool, own: dict[str, str] | None = None) -> list[str]:
    addresses = {
        "control": ["http://c"],
        "proxies": ["http://p", "http://q"],
        "ops": {"control-1": "http://o:1", "proxy-1": "http://o:2", "proxy-2": "http://o:3"},
        "kafka": "k:1",
        "redis": "redis://r:1/0",
        "database": "postgresql://d",
        "environment": str(Path.cwd() / "data/environment"),
        "logs": str(Path.cwd() / "data/logs"),
        "is_new": is_new,
        "own": own or {},
    }
    return cluster.shown(addresses).splitlines()


def test_the_next_commands_read_the_environment_that_holds_the_master_key() -> None:
    said = shown(is_new=True)
    assert "  inference             http://p http://q" in said
    (environment,) = [line for line in said if line.startswith("  . data/environment; PATH=")]
    assert said.index(environment) < said.index("  tollgate workspace create --name lab --org-prefix your-org")


@pytest.mark.parametrize("is_new", [True, False])
def test_the_operators_ports_are_named_as_reconcile_takes_them(is_new: bool) -> None:
    said = shown(is_new=is_new)
    assert {"  control-1's ops port  http://o:1", "  proxy-1's ops port    http://o:2"} <= set(said)
    assert "  tollgate reconcile --proxy http://o:2 --proxy http://o:3" in said


def test_where_a_lab_is_onboarded_nobody_is_told_to_onboard_it_again() -> None:
    said = shown(is_new=False)
    assert "  tollgate workspace list" in said
    assert not [line for line in said if "create" in line]


def test_a_secure_cluster_names_what_a_company_sets_to_values_of_its_own() -> None:
    said = shown(is_new=False, own={"kafka_sasl_password": "the password of a user of yours"})
    assert "On your own services set, instead of what data/environment has:" in said
    assert "  TOLLGATE_KAFKA_SASL_PASSWORD  the password of a user of yours" in said
    assert not any("On your own services" in line for line in shown(is_new=False))

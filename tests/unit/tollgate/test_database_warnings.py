"""A database on another machine whose certificate is not wholly checked is warned of, and no other."""

from typing import Any

import pytest

from runtime.database import postgres
from runtime.settings import Settings
from tollgate import installation


@pytest.mark.parametrize(
    ("url", "environment", "mode"),
    [
        ("postgresql://u@db.lab.example/n", {}, "prefer"),
        ("postgresql://u@db.lab.example/n?sslmode=require", {}, "require"),
        ("postgresql://u@db.lab.example/n?sslmode=verify-ca", {}, "verify-ca"),
        ("postgresql://u@localhost,10.0.0.1/n?sslmode=disable", {}, "disable"),
        ("postgresql:///n", {"PGHOST": "10.0.0.1"}, "prefer"),
        ("postgresql://u@db.lab.example/n?sslmode=verify-full", {}, None),
        ("postgresql://u@db.lab.example/n", {"PGSSLMODE": "verify-full"}, None),
        ("postgresql://u@127.0.0.1,localhost/n", {}, None),
        ("postgresql://u@[::1]/n", {}, None),
        ("postgresql:///n?host=/run/postgresql", {}, None),
        ("postgresql:///n", {}, None),
    ],
)
def test_less_than_a_whole_check_is_warned_of(url: str, environment: dict[str, Any], mode: str | None) -> None:
    said = postgres.tls_warning("TOLLGATE_DATABASE_URL", url, environment)
    if mode is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith(f"TOLLGATE_DATABASE_URL has sslmode={mode}, ")
        assert "sslmode=verify-full" in said


def test_each_address_is_warned_of_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    url = "postgresql://u:hush@db.lab.example/n"
    found = installation.warnings(Settings(database_url=url, database_direct_url=url))
    assert [line.partition(" ")[0] for line in found] == ["TOLLGATE_DATABASE_URL", "TOLLGATE_DATABASE_DIRECT_URL"]
    assert "hush" not in "".join(found)
    assert installation.warnings(Settings(database_url="postgresql://u@h/n?nonsense=1")) == []

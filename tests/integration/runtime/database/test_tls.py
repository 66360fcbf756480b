"""PostgreSQL by TLS: whose certificate it is, is checked, and a client may show its own instead of a password."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from infra.local import certificates, postgres, process
from infra.local.certificates import Certificates
from infra.local.postgres import Server
from runtime.database import engines
from tests.support import services

_USES_TLS = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
_HBA = "host all postgres 127.0.0.1/32 trust\nhostssl all tollgate 127.0.0.1/32 cert\n"


@dataclass(frozen=True)
class Place:
    server: Server
    files: Certificates

    def url(self, user: str, host: str = "localhost", /, **options: object) -> str:
        """Return an address with libpq's options."""
        words = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}@{host}:{self.server.port}/postgres?{words}"


@pytest.fixture(scope="module")
def place(postgres_installed: None) -> Iterator[Place]:
    """A server that lets the user tollgate in by certificate alone."""
    with services.folder("tls") as folder:
        files = certificates.make(folder)
        files.client.chmod(0o600)
        hba = folder / "hba.conf"
        hba.write_text(_HBA, encoding="utf-8")
        if (user := postgres.user()) is not None:
            os.chown(files.server, user, -1)
        files.server.chmod(0o600)
        server = postgres.at(folder / "server", durable=False)
        (folder / "server").chmod(0o711)
        server.more = {
            "ssl": "on",
            "ssl_cert_file": str(files.server),
            "ssl_key_file": str(files.server),
            "ssl_ca_file": str(files.authority),
            "hba_file": str(hba),
        }
        with process.running(server):
            with closing(psycopg.connect(server.url, autocommit=True)) as connection:
                connection.execute("CREATE ROLE tollgate LOGIN")
            yield Place(server, files)


def _asked(url: str) -> bool:
    with engines.postgres(url) as opened:
        return bool(opened.write_now(lambda connection: connection.execute(_USES_TLS).scalar_one()))


def test_a_server_whose_certificate_is_right_is_used(place: Place) -> None:
    assert _asked(place.url("postgres", sslmode="verify-full", sslrootcert=place.files.authority))


def test_a_client_shows_a_certificate_of_its_own(place: Place) -> None:
    client = {"sslcert": place.files.client, "sslkey": place.files.client}
    full = {"sslmode": "verify-full", "sslrootcert": place.files.authority}
    assert _asked(place.url("tollgate", **full, **client))
    with pytest.raises(OperationalError, match="valid client certificate"):
        _asked(place.url("tollgate", **full))


def test_another_authority_is_refused(place: Place, tmp_path: Path) -> None:
    other = certificates.make(tmp_path).authority
    with pytest.raises(OperationalError, match="certificate verify failed"):
        _asked(place.url("postgres", sslmode="verify-full", sslrootcert=other))


def test_another_name_is_refused(place: Place) -> None:
    full = {"sslmode": "verify-full", "sslrootcert": place.files.authority, "hostaddr": process.HOST}
    with pytest.raises(OperationalError, match="does not match host name"):
        _asked(place.url("postgres", "db.lab.example", **full))

"""A database whose replica takes over is found at its other address, by the same processes, without a restart."""

import logging
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from infra.local import postgres, process
from infra.local.postgres import Server
from runtime import outage
from runtime.database import engines
from runtime.outage import Outage
from tests.support import services

WITHIN_S = 60
_COUNT = text("SELECT count(*) FROM written")
log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A primary and a replica that follows it."""

    primary: Server
    replica: Server

    def promote(self) -> None:
        """End the primary as a power switch would, and have the replica take over."""
        self.primary.process.kill()
        with closing(psycopg.connect(self.replica.url, autocommit=True)) as connection:
            assert connection.execute("SELECT pg_promote(true, %s)", [WITHIN_S]).fetchone() == (True,)


@pytest.fixture
def pair(postgres_installed: None) -> Iterator[Pair]:
    with (
        services.folder("primary") as one,
        services.folder("replica") as other,
        postgres.running(one, durable=False) as primary,
    ):
        with closing(psycopg.connect(primary.url, autocommit=True)) as connection:
            connection.execute("CREATE TABLE written (one int)")
        _copy(primary, other)
        with process.running(postgres.at(other, durable=False)) as replica:
            yield Pair(primary, replica)


def _copy(primary: Server, folder: Path) -> None:
    user = postgres.user()
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(data, user, pwd.getpwuid(user).pw_gid)
    words = [postgres.binary("pg_basebackup"), "-D", str(data), "-d", primary.url, "-R", "-X", "stream", "-c", "fast"]
    subprocess.run(words, user=user, cwd="/", check=True, timeout=WITHIN_S, capture_output=True)


def _write(connection: Connection) -> int:
    connection.execute(text("INSERT INTO written VALUES (1)"))
    return int(connection.execute(_COUNT).scalar_one())


async def test_the_other_address_is_found_when_the_first_is_gone(pair: Pair) -> None:
    hosts = f"{process.HOST}:{pair.primary.port},{process.HOST}:{pair.replica.port}"
    url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    with engines.postgres(url) as opened, closing(psycopg.connect(pair.replica.url, autocommit=True)) as replica:
        assert opened.write_now(_write) == 1
        while replica.execute(_COUNT.text).fetchone() != (1,):
            assert pair.replica.process.alive()
        pair.promote()
        rides = Outage("the test", log)
        assert await rides.ride_out(lambda: opened.write(_write)) == 2
        assert await rides.ride_out(lambda: opened.read(lambda view: view.execute(_COUNT).scalar_one())) == 2


async def test_a_replica_under_the_address_is_an_outage_until_it_takes_over(pair: Pair) -> None:
    """An address that moves (a name, a load balancer) may lead to a server that may only read, for a while."""
    with engines.postgres(pair.replica.url) as opened:
        with pytest.raises(DBAPIError) as refused:
            opened.write_now(_write)
        assert outage.is_transient(refused.value)
        pair.promote()
        assert await Outage("the test", log).ride_out(lambda: opened.write(_write)) == 1


def test_a_reader_that_writes_is_no_outage(pair: Pair) -> None:
    with engines.postgres(pair.primary.url) as opened, pytest.raises(DBAPIError) as refused:
        opened.read_now(_write)
    assert not outage.is_transient(refused.value)

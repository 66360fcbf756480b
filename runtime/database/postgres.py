"""What of a PostgreSQL server's surroundings is dangerous: a pooler that nobody told of, a certificate not checked."""

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, func, select

from runtime.database.engines import Database

_HERE = ("localhost", "127.", "::1", "/")
"""What the name of a host begins with that no network is in between of: a socket's path, this machine."""
_BACKEND = select(func.pg_backend_pid())


class PooledError(Exception):
    """A pooler stands where a session of its own is needed; one line says which setting is meant."""


def check_sessions(database: Database) -> None:
    """Raise PooledError where a session may be another's too, and what a database raises.

    Without a session of its own no lock holds, and what is set for one connection is in force for another.
    """
    if _shares(database.session_engine):
        given = database.session_engine is not database.engine
        named = "TOLLGATE_DATABASE_DIRECT_URL" if given else "TOLLGATE_DATABASE_URL"
        raise PooledError(
            f"{named} leads to a pooler that shares its connections (transaction mode): name the server itself, or a "
            "pool in session mode, with TOLLGATE_DATABASE_DIRECT_URL"
        )


def _shares(engine: Engine) -> bool:
    """Whether two connections that are open at once have one server process between them."""
    with engine.connect() as one, engine.connect() as other:
        pids = []
        for connection in (one, other):
            pids.append(connection.execute(_BACKEND).scalar_one())
            connection.rollback()  # with the transaction ends what a pooler lends
    return len(set(pids)) == 1


def parts_of(url: str) -> dict[str, Any] | None:
    """Return what libpq reads in a URL, by its names; None where it is none."""
    from psycopg import ProgrammingError, conninfo  # noqa: PLC0415 - most commands have a data directory and no server

    try:
        return conninfo.conninfo_to_dict(url)
    except ProgrammingError:
        return None


def tls_warning(variable: str, url: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return one line where the server's certificate is not wholly checked, though it is on another machine.

    `sslmode=require` checks nothing, `verify-ca` not the name (PostgreSQL's documentation, "SSL Mode Descriptions").
    """
    given = parts_of(url)
    if given is None:  # whoever opens it is told
        return None
    hosts = str(given.get("host") or environment.get("PGHOST") or "").split(",")
    mode = str(given.get("sslmode") or environment.get("PGSSLMODE") or "prefer")
    if any("@" in host for host in hosts):  # a password that is not encoded: whoever opens it refuses the URL
        return None
    if mode == "verify-full" or all(not host or host.startswith(_HERE) for host in hosts):
        return None
    return (
        f"{variable} has sslmode={mode}, which does not check whom it talks to; "
        "add sslmode=verify-full and sslrootcert=FILE (or sslrootcert=system)"
    )

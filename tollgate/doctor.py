"""Examines everything that an installation depends on, one by one (contract 6: `doctor`).

It changes nothing, and goes on after a problem.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from metering.store import day_partitions, ledger_clock
from proxy.windows import redis
from runtime import clock, settings
from runtime.config import log as config_log
from runtime.config import restored
from runtime.database import engines as databases
from runtime.database import postgres
from runtime.database.engines import Database
from runtime.kafka import topics
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.redis import RedisAddress
from runtime.settings import Settings
from runtime.vault import VaultError
from tollgate import installation, migrations, stored_urls
from tollgate.installation import DATABASE_FILE, InstallationError
from tollgate.restoration import configuration

_AHEAD = timedelta(seconds=5)
"""By how much the ledger's clock may be ahead before that is said."""

_LEAST_FREE_BYTES = 1024 * 1024 * 1024
_MEND_FIRST = "it cannot be tried on a database that is not as it must be: mend that first"
_MADE = "`tollgate serve` and `tollgate workspace create` make it"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what is wrong with it."""

    what: str
    problems: tuple[str, ...]
    """Lines that say what to do too; empty: it is well."""


def examine(loaded: Settings) -> Iterator[Finding]:
    """Look at each dependency of the installation that the settings describe."""
    yield Finding("settings", (*settings.warnings(), *installation.warnings(loaded)))
    apart = loaded.database_url is not None or loaded.kafka_bootstrap is not None
    yield Finding("data directory", _tried(lambda: _disk(loaded, apart=apart)))
    yield Finding("database", _tried(lambda: _schema(loaded, apart=apart)))
    yield Finding("master key", _tried(lambda: _master_key(loaded, apart=apart)))
    yield Finding("URLs of endpoints and webhooks", _tried(lambda: _urls(loaded, apart=apart)))
    if apart:
        yield Finding("Kafka", _tried(lambda: _topics(loaded)))
    where = redis.place(loaded)
    if where is not None:
        yield Finding("Redis", _tried(lambda: asyncio.run(_rate_windows(where, loaded.redis_key_prefix))))


def _tried(look: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    try:
        return tuple(look())
    except (InstallationError, VaultError, KafkaAwayError, OSError) as error:
        return (str(error),)


def _disk(loaded: Settings, *, apart: bool) -> Sequence[str]:
    folder = loaded.data_dir
    if not folder.is_dir():
        # apart, only a proxy needs one, and makes it
        return [] if apart else [f"there is no {folder.resolve()}; {_MADE}, or name another with --data"]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return [f"{folder.resolve()} cannot be written by this user; run as its owner, or return it to this user"]
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        return [f"{folder} has {free // 2**20} MiB left; proxies answer 503 when their disk is full: make room"]
    return []


def _schema(loaded: Settings, *, apart: bool) -> Sequence[str]:
    if not apart and not (loaded.data_dir / DATABASE_FILE).exists():
        return [f"there is no {DATABASE_FILE} in it yet; {_MADE}"] if loaded.data_dir.is_dir() else []
    with ExitStack() as closing:
        opened = installation.shared_database if apart else installation.database_as_found
        database, where = opened(loaded, closing)
        try:
            if apart:
                postgres.check_sessions(database)
            too_small = database.read_now(lambda view: day_partitions.advice(view, loaded.ledger_days))
            outdated = migrations.check(database)
            return [*outdated, *([too_small] if too_small else []), *([] if outdated else database.read_now(_clock))]
        except postgres.PooledError as error:
            return [str(error)]
        except SQLAlchemyError as error:
            return [installation.unusable(where, error)]


def _clock(connection: Connection) -> Sequence[str]:
    """Say by how much the ledger's clock is ahead of the machine's, or of PostgreSQL's."""
    ahead = ledger_clock.ahead(connection, databases.now(connection, clock.present))
    if ahead < _AHEAD:
        return []
    return [
        f"the ledger's clock is {timedelta(seconds=round(ahead.total_seconds()))} ahead, since the clock it goes by "
        "was set back; it goes at half the speed until it is right, and `recordedAt` and the hold-back of events go by "
        "it: nothing is to be done, and nothing is lost"
    ]


def _master_key(loaded: Settings, *, apart: bool) -> Sequence[str]:
    if apart:
        installation.given_key(loaded)
    elif not (loaded.data_dir / DATABASE_FILE).exists():
        return []  # it is made with the database
    with ExitStack() as closing:
        place = installation.as_found(loaded, closing)
        if not _is_current(place.database):
            return [_MEND_FIRST]
        installation.check_master_key(place)
    return []


def _urls(loaded: Settings, *, apart: bool) -> Sequence[str]:
    if not apart and not (loaded.data_dir / DATABASE_FILE).exists():
        return []  # nothing is stored yet
    with ExitStack() as closing:
        database, _ = installation.database_as_found(loaded, closing)
        if not _is_current(database):
            return [_MEND_FIRST]
        stored = database.read_now(stored_urls.read)
    return stored_urls.refused(loaded, stored)


def _is_current(database: Database) -> bool:
    try:
        return not migrations.check(database)
    except SQLAlchemyError:
        return False


def _topics(loaded: Settings) -> Sequence[str]:
    if loaded.kafka_bootstrap is None:
        return ["TOLLGATE_KAFKA_BOOTSTRAP is not set; it names the brokers, as host:9092"]
    where = Kafka.of(loaded)
    lacking = topics.report(asyncio.run(topics.ensure(where, topics.plans(loaded), create=False)))
    return lacking or _restored(loaded, where)


def _restored(loaded: Settings, where: Kafka) -> Sequence[str]:
    """Say where the database is below its topic; of the two the topic is read first, for the database is ahead."""
    with ExitStack() as closing:
        database, _ = installation.database_as_found(loaded, closing)
        if not _is_current(database):
            return []  # said already
        known = asyncio.run(configuration.newest(where))
        told = database.read_now(config_log.current_version)
    return [restored.advice(told, known)] if told < known else []


async def _rate_windows(where: RedisAddress, prefix: str) -> Sequence[str]:
    problem = await redis.problem(where, prefix)
    return [problem] if problem else []

"""Examines everything that an installation depends on, one by one (spec 6: `doctor`).

Never changes anything, and never stops at the first problem.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from metering import partitions
from runtime import topics
from runtime.kafka import Kafka, KafkaAwayError
from runtime.settings import Settings, unknown_variables
from runtime.vault import VaultError
from tollgate import migrations, workplace
from tollgate.workplace import DATABASE_FILE, WorkplaceError

_LEAST_FREE_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what is wrong with it."""

    what: str
    problems: tuple[str, ...]
    """One line each, which says what to do too; empty: it is well."""


def examine(loaded: Settings) -> Iterator[Finding]:
    """Look at each dependency of the installation that the settings describe."""
    unknown = unknown_variables()
    yield Finding("environment", tuple(unknown))
    apart = loaded.database_url is not None or loaded.kafka_bootstrap is not None
    yield Finding("data directory", _tried(lambda: _disk(loaded)))
    yield Finding("database", _tried(lambda: _schema(loaded, apart=apart)))
    yield Finding("master key", _tried(lambda: _master_key(loaded, apart=apart)))
    if apart:
        yield Finding("Kafka", _tried(lambda: _topics(loaded)))


def _tried(look: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    try:
        return tuple(look())
    except (WorkplaceError, VaultError, KafkaAwayError, OSError) as error:
        return (str(error),)


def _disk(loaded: Settings) -> Sequence[str]:
    folder = loaded.data_dir
    if not folder.exists():
        return ()  # made by the first `serve`
    free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE_BYTES:
        return [f"{folder} has {free // 2**20} MiB left; proxies answer 503 when their disk is full: make room"]
    return ()


def _schema(loaded: Settings, *, apart: bool) -> Sequence[str]:
    with ExitStack() as closing:
        if apart:
            database, where = workplace.shared_database(loaded, closing)
        elif (loaded.data_dir / DATABASE_FILE).exists():
            place = closing.enter_context(workplace.opened(loaded))
            database, where = place.database, place.where
        else:
            return ()  # made by the first `serve` or `workspace create`
        try:
            too_small = database.read_now(lambda view: partitions.advice(view, loaded.ledger_days))
            return [*migrations.check(database), *([too_small] if too_small else [])]
        except SQLAlchemyError as error:
            return [workplace.unusable(where, error)]


def _master_key(loaded: Settings, *, apart: bool) -> Sequence[str]:
    if apart:
        workplace.given_key(loaded)
    elif not (loaded.data_dir / DATABASE_FILE).exists():
        return ()
    with workplace.opened(loaded) as place:
        workplace.check_master_key(place)
    return ()


def _topics(loaded: Settings) -> Sequence[str]:
    if loaded.kafka_bootstrap is None:
        return ["TOLLGATE_KAFKA_BOOTSTRAP is not set; it names the brokers, as host:9092"]
    return asyncio.run(topics.ensure(Kafka.of(loaded), topics.plans(loaded), create=False))

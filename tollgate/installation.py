"""What a command or a server works on, opened: settings, database and master key, and the lock of a data directory."""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from control.store.workspaces import SqlWebhooks
from domain import sealing
from runtime import settings, vault
from runtime.config import log as config_log
from runtime.database import engines, postgres
from runtime.outage import is_transient, refuses_login
from runtime.vault import Vault
from schemas.config import WebhookRecord
from tollgate import migrations

MASTER_KEY_FILE = "master.key"
DATABASE_FILE = "tollgate.db"
LOCK_FILE = "serve.lock"
_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.05

_NO_KEY = "TOLLGATE_MASTER_KEY is not set; every process that opens secrets needs the same one"

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class InstallationError(Exception):
    """The data directory cannot be used; the message is one line that says why."""


class AwayError(InstallationError):
    """The database does not answer as it should; it may later."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A database and the master key of what it holds."""

    folder: Path
    """The data directory; beside `TOLLGATE_DATABASE_URL` nothing lies there but a proxy's files."""
    where: str
    """Names the place to people, without a password."""
    settings: settings.Settings
    database: engines.Database
    master_key: bytes | None = field(repr=False)
    """None: `TOLLGATE_MASTER_KEY` is not set, and there is no file of it beside what it has sealed."""
    is_new: bool = False
    """Whether its database was made by this opening."""

    @property
    def vault(self) -> Vault:
        """Return what opens and seals secrets. Raise InstallationError where there is no master key."""
        if self.master_key is None:
            lost = f"{self.folder / MASTER_KEY_FILE} is missing; put it back, or set TOLLGATE_MASTER_KEY to what it was"
            raise InstallationError(_NO_KEY if self.settings.database_url else lost)
        return Vault(self.master_key)

    def sealer(self, connection: Connection) -> Vault:
        """Return what seals secrets in this transaction: it opens every secret that signs webhooks by now.

        Raise InstallationError where another master key sealed one, so that no second key gets in.
        """
        opener = self.vault
        sealed = [webhook for webhook in SqlWebhooks(connection).every() if webhook.secrets]
        others = [webhook.workspace_id for webhook in sealed if not _opens(opener, webhook)]
        if others:
            raise InstallationError(
                f"this is not the master key that sealed the secrets of {len(others)} of {len(sealed)} workspaces in "
                f"{self.where} ({others[0]}{', ...' if others[1:] else ''}); use the one that did"
            )
        return opener

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction. Raise InstallationError where the database does not answer."""
        return self._run(self.database.write_now, config_log.in_turn(work))

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on one consistent view. Raise InstallationError where the database does not answer."""
        return self._run(self.database.read_now, work)

    def _run(
        self, how: Callable[[Callable[[Connection], Result]], Result], work: Callable[[Connection], Result]
    ) -> Result:
        try:
            return how(work)
        except SQLAlchemyError as error:
            raise failed(self.where, error) from error


@contextmanager
def opened(loaded: settings.Settings, *, new: bool = False) -> Iterator[Installation]:
    """Open the database that `TOLLGATE_DATABASE_URL` names, else the data directory. Raise InstallationError.

    The directory's own is migrated here, and `new` makes one where there is none, and a master key where none has
    sealed anything; a database that several processes share is migrated by `tollgate migrate` alone.
    """
    with ExitStack() as closing:
        try:
            place = _shared(loaded, closing) if loaded.database_url else _embedded(loaded, closing, new=new)
        except (vault.VaultError, migrations.MigrationError, OSError) as error:
            raise InstallationError(str(error)) from error
        yield place


def _embedded(loaded: settings.Settings, closing: ExitStack, *, new: bool) -> Installation:
    folder, where = loaded.data_dir, str(loaded.data_dir.resolve())
    is_new = not (folder / DATABASE_FILE).exists()
    if is_new and not new:
        raise InstallationError(
            f"there is no Tollgate data in {where}; name its directory with --data or TOLLGATE_DATA_DIR"
        )
    make(folder)
    key = _kept_key(loaded)
    try:
        main = closing.enter_context(engines.sqlite(folder / DATABASE_FILE))
        migrations.upgrade(main)
        if key is None and new and not main.read_now(_has_sealed):
            key = vault.load_or_create_key(folder / MASTER_KEY_FILE)
    except SQLAlchemyError as error:
        raise failed(where, error) from error
    return Installation(folder, where, loaded, main, key, is_new)


def _kept_key(loaded: settings.Settings) -> bytes | None:
    """Return the key of the settings, else of the data directory's file; None where there is neither."""
    if loaded.master_key is not None:
        return given_key(loaded)
    path = loaded.data_dir / MASTER_KEY_FILE
    return vault.decode_key(path.read_text(encoding="ascii", errors="replace")) if path.exists() else None


def _has_sealed(connection: Connection) -> bool:
    return any(webhook.secrets for webhook in SqlWebhooks(connection).every())


def _opens(opener: Vault, webhook: WebhookRecord) -> bool:
    try:
        for secret in webhook.secrets:
            opener.open(secret.sealed, sealing.webhook_context(webhook.workspace_id))
    except vault.VaultError:
        return False
    return True


def as_found(loaded: settings.Settings, closing: ExitStack) -> Installation:
    """Open what is there as it stands: nothing is made, migrated or written. Raise InstallationError, VaultError."""
    main, where = database_as_found(loaded, closing)
    key = None if loaded.database_url and not loaded.master_key else _kept_key(loaded)
    return Installation(loaded.data_dir, where, loaded, main, key)


def database_as_found(loaded: settings.Settings, closing: ExitStack) -> tuple[engines.Database, str]:
    """Return the database as it stands, whatever its schema, with a name for people. Raise InstallationError."""
    if loaded.database_url is not None:
        return shared_database(loaded, closing)
    return closing.enter_context(_only_read(loaded.data_dir / DATABASE_FILE)), str(loaded.data_dir.resolve())


@contextmanager
def _only_read(path: Path) -> Iterator[engines.Database]:
    """Open an embedded database so that nothing in its directory changes."""
    # Where a -wal file lies, somebody has it open or was killed; where none does, SQLite would make one to read.
    is_open = path.with_name(f"{path.name}-wal").exists()
    url = f"{path.absolute().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(url, uri=True), poolclass=NullPool)
    opened = engines.Database(engine)
    try:
        yield opened
    finally:
        opened.close()


def _shared(loaded: settings.Settings, closing: ExitStack) -> Installation:
    main, where = shared_database(loaded, closing)
    _check_schema(main, where)
    key = given_key(loaded) if loaded.master_key is not None else None
    return Installation(loaded.data_dir, where, loaded, main, key)


def current_database(loaded: settings.Settings, closing: ExitStack) -> engines.Database:
    """Open the database that `TOLLGATE_DATABASE_URL` names. Raise InstallationError where its schema is not current."""
    main, where = shared_database(loaded, closing)
    _check_schema(main, where)
    return main


def _check_schema(main: engines.Database, where: str) -> None:
    try:
        postgres.check_sessions(main)
        problems = migrations.check(main)
        newer = migrations.newer(main)
    except postgres.PooledError as error:
        raise InstallationError(str(error)) from None
    except SQLAlchemyError as error:
        raise failed(where, error) from error
    if problems:
        raise InstallationError(f"{where}: {'; '.join(problems)}")
    if newer:
        log.warning("%s: the schema %s is a newer release's; what that has more is not known here", where, newer)


def shared_database(loaded: settings.Settings, closing: ExitStack) -> tuple[engines.Database, str]:
    """Open the database that `TOLLGATE_DATABASE_URL` names, whatever its schema; return it with a name for people.

    Asks nothing of the server yet. Raise InstallationError where the setting is missing or no such URL.
    """
    if loaded.database_url is None:
        raise InstallationError(
            "TOLLGATE_DATABASE_URL is not set; it names the PostgreSQL database of this installation"
        )
    url = loaded.database_url.get_secret_value()
    direct = None if loaded.database_direct_url is None else loaded.database_direct_url.get_secret_value()
    try:
        opened = closing.enter_context(engines.postgres(url, direct, loaded.database_prepare_threshold))
    except engines.DatabaseUrlError as error:
        raise InstallationError(f"TOLLGATE_DATABASE_URL or TOLLGATE_DATABASE_DIRECT_URL: {error}") from None
    parts = postgres.parts_of(url) or {}
    return opened, f"PostgreSQL {parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def warnings(loaded: settings.Settings) -> list[str]:
    """Return one line for each database that settings name and that is reached without a whole check of whose it is."""
    found = []
    for name in ("database_url", "database_direct_url"):
        url: SecretStr | None = getattr(loaded, name)
        found.append(url and postgres.tls_warning(settings.variable(name), url.get_secret_value()))
    return [warning for warning in found if warning]


def named(loaded: settings.Settings) -> str:
    """Name the installation that settings describe to people, without a password."""
    if loaded.database_url is None:
        place = f"the data directory {loaded.data_dir.resolve()}"
    else:
        try:
            with ExitStack() as closing:
                _, place = shared_database(loaded, closing)
        except InstallationError:  # whoever opens it is told
            place = "the database of TOLLGATE_DATABASE_URL"
    return place if loaded.kafka_bootstrap is None else f"{place}, with Kafka {loaded.kafka_bootstrap}"


def given_key(loaded: settings.Settings) -> bytes:
    """Return the master key that every process of an installation shares. Raise InstallationError, VaultError."""
    if loaded.master_key is None:
        raise InstallationError(_NO_KEY)
    return vault.decode_key(loaded.master_key.get_secret_value())


def make(folder: Path) -> None:
    """Make a data directory where there is none, for its owner's eyes alone: it holds the master key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the directory for the one process that serves it. Raise InstallationError where another one does.

    The operating system gives the lock back when its process dies, however it dies.
    """
    make(folder)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locks(descriptor):
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "another process"
            raise InstallationError(f"{folder} is already served by process {holder}; stop it, or use another --data")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_served(folder: Path) -> bool:
    """Tell whether a process serves the directory. Holds the lock for a moment where none does."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_master_key(place: Installation) -> None:
    """Raise InstallationError where there is no master key, or another one sealed something that the database holds."""
    place.read(place.sealer)


def _locks(descriptor: int) -> bool:
    """Take the lock; tried for a moment, since `is_served` holds it that long."""
    for left in range(_LOCK_TRIES - 1, -1, -1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if left:
                time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def failed(where: str, error: SQLAlchemyError) -> InstallationError:
    """Return what tells that work on a database failed: an AwayError where the same work may succeed later."""
    passes = is_transient(error) and not refuses_login(error)
    return (AwayError if passes else InstallationError)(unusable(where, error))


def unusable(where: str, error: SQLAlchemyError) -> str:
    """Say in one line that a database does not answer as it should."""
    reason = str(getattr(error, "orig", None) or type(error).__name__)
    return f"the database in {where} cannot be used: {' '.join(reason.split())}"

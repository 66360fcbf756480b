"""What a command or a server works on, opened: settings, database and master key, and the lock of a data directory.

Never makes a second copy of anything: every command and every role opens its place here.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from control.store.workspaces import Webhooks
from runtime import config_log, database, settings, vault
from runtime.vault import Vault
from tollgate import migrations

MASTER_KEY_FILE = "master.key"
DATABASE_FILE = "tollgate.db"
LOCK_FILE = "serve.lock"
_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.05

_NO_KEY = "TOLLGATE_MASTER_KEY is not set; every process that opens secrets needs the same one"

Result = TypeVar("Result")


class WorkplaceError(Exception):
    """The data directory cannot be used; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """A database and the master key of what it holds."""

    folder: Path
    """The data directory; beside `TOLLGATE_DATABASE_URL` nothing lies there but a proxy's files."""
    where: str
    """Names the place to people, without a password."""
    settings: settings.Settings
    database: database.Database
    master_key: bytes | None = field(repr=False)
    """None: `TOLLGATE_MASTER_KEY` is not set beside a database of several processes."""

    @property
    def vault(self) -> Vault:
        """Give what opens and seals secrets. Raises WorkplaceError where there is no master key."""
        if self.master_key is None:
            raise WorkplaceError(_NO_KEY)
        return Vault(self.master_key)

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction. Raises WorkplaceError where the database does not answer."""
        return self._run(self.database.write_now, config_log.in_turn(work))

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on one consistent view. Raises WorkplaceError where the database does not answer."""
        return self._run(self.database.read_now, work)

    def _run(
        self, how: Callable[[Callable[[Connection], Result]], Result], work: Callable[[Connection], Result]
    ) -> Result:
        try:
            return how(work)
        except SQLAlchemyError as error:
            raise WorkplaceError(unusable(self.where, error)) from error


@contextmanager
def opened(loaded: settings.Settings, *, new: bool = False) -> Iterator[Workplace]:
    """Open the database that `TOLLGATE_DATABASE_URL` names, else the data directory. Raises WorkplaceError.

    The directory's own is migrated here, and `new` makes one where there is none; a database that several processes
    share is migrated by `tollgate migrate` alone.
    """
    with ExitStack() as closing:
        try:
            place = _shared(loaded, closing) if loaded.database_url else _embedded(loaded, closing, new=new)
        except (vault.VaultError, migrations.MigrationError, OSError) as error:
            raise WorkplaceError(str(error)) from error
        yield place


def _embedded(loaded: settings.Settings, closing: ExitStack, *, new: bool) -> Workplace:
    folder = loaded.data_dir
    if not new and not (folder / DATABASE_FILE).exists():
        raise WorkplaceError(f"there is no Tollgate data in {folder.resolve()}; name its directory with --data")
    make(folder)
    given = loaded.master_key
    path = folder / MASTER_KEY_FILE
    key = vault.decode_key(given.get_secret_value()) if given else vault.load_or_create_key(path)
    try:
        main = closing.enter_context(database.sqlite(folder / DATABASE_FILE))
        migrations.upgrade(main)
    except SQLAlchemyError as error:
        raise WorkplaceError(unusable(str(folder), error)) from error
    return Workplace(folder, str(folder), loaded, main, key)


def _shared(loaded: settings.Settings, closing: ExitStack) -> Workplace:
    main, where = shared_database(loaded, closing)
    _check_schema(main, where)
    key = given_key(loaded) if loaded.master_key is not None else None
    return Workplace(loaded.data_dir, where, loaded, main, key)


def current_database(loaded: settings.Settings, closing: ExitStack) -> database.Database:
    """Open the database that `TOLLGATE_DATABASE_URL` names. Raises WorkplaceError where its schema is not current."""
    main, where = shared_database(loaded, closing)
    _check_schema(main, where)
    return main


def _check_schema(main: database.Database, where: str) -> None:
    try:
        problems = migrations.check(main)
    except SQLAlchemyError as error:
        raise WorkplaceError(unusable(where, error)) from error
    if problems:
        raise WorkplaceError(f"{where}: {'; '.join(problems)}")


def shared_database(loaded: settings.Settings, closing: ExitStack) -> tuple[database.Database, str]:
    """Open the database that `TOLLGATE_DATABASE_URL` names, whatever its schema; give it with a name for people.

    Asks nothing of the server yet. Raises WorkplaceError where the setting is missing or no such URL.
    """
    if loaded.database_url is None:
        raise WorkplaceError("TOLLGATE_DATABASE_URL is not set; it names the PostgreSQL database of this installation")
    url = loaded.database_url.get_secret_value()
    try:
        opened = closing.enter_context(database.postgres(url))
    except database.DatabaseUrlError as error:
        raise WorkplaceError(f"TOLLGATE_DATABASE_URL: {error}") from None
    named = conninfo_to_dict(url)
    return opened, f"PostgreSQL {named.get('host', 'localhost')}:{named.get('port', 5432)}/{named.get('dbname', '')}"


def given_key(loaded: settings.Settings) -> bytes:
    """Give the master key that every process of an installation shares. Raises WorkplaceError, VaultError."""
    if loaded.master_key is None:
        raise WorkplaceError(_NO_KEY)
    return vault.decode_key(loaded.master_key.get_secret_value())


def make(folder: Path) -> None:
    """Make a data directory where there is none, for its owner's eyes alone: it holds the master key."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the directory for the one process that serves it. Raises WorkplaceError where another one does.

    The operating system gives the lock back when its process dies, however it dies.
    """
    make(folder)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locks(descriptor):
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "another process"
            raise WorkplaceError(f"{folder} is already served by process {holder}; stop it, or use another --data")
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


def check_master_key(place: Workplace) -> None:
    """Raise WorkplaceError where another master key sealed what the database holds."""
    webhooks = place.read(lambda connection: Webhooks(connection).every())
    sealed = next((webhook for webhook in webhooks if webhook.secrets), None)
    if sealed is not None:
        try:
            place.vault.open(sealed.secrets[0].sealed, vault.webhook_context(sealed.workspace_id))
        except vault.VaultError as error:
            raise WorkplaceError(f"{error} It guards the secrets in {place.where}") from None


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


def unusable(where: str, error: SQLAlchemyError) -> str:
    """Say in one line that a database does not answer as it should."""
    reason = str(getattr(error, "orig", None) or type(error).__name__)
    return f"the database in {where} cannot be used: {' '.join(reason.split())}"

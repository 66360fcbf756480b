"""Queries of the console's sessions and of the operator's links.

Of a token only its SHA-256 comes here.
"""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from control.core.records import Session
from control.store.tables import CONSOLE_LINKS, CONSOLE_SESSIONS

_SESSION = CONSOLE_SESSIONS.c


class SqlSessions:
    """The sessions and links of all people, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, sha256: str) -> Session | None:
        """Return the session whose token has this digest, whatever its age."""
        row = self._connection.execute(select(CONSOLE_SESSIONS).where(_SESSION.sha256 == sha256)).first()
        return None if row is None else Session(row.sha256, row.workspace_id, row.key_prefix, row.begun_at, row.used_at)

    def add(self, session: Session) -> None:
        """Keep a new session."""
        names = ("sha256", "workspace_id", "key_prefix", "begun_at", "used_at")
        self._connection.execute(insert(CONSOLE_SESSIONS).values({name: getattr(session, name) for name in names}))

    def touch(self, sha256: str, now: datetime) -> None:
        """Note that the session was used."""
        self._connection.execute(update(CONSOLE_SESSIONS).where(_SESSION.sha256 == sha256).values(used_at=now))

    def end(self, sha256: str) -> None:
        """Forget the session."""
        self._connection.execute(delete(CONSOLE_SESSIONS).where(_SESSION.sha256 == sha256))

    def end_older(self, *, used_before: datetime, begun_before: datetime) -> None:
        """Forget the sessions that were last used, or begun, before these moments."""
        old = (_SESSION.used_at < used_before) | (_SESSION.begun_at < begun_before)
        self._connection.execute(delete(CONSOLE_SESSIONS).where(old))

    def add_link(self, sha256: str, expires_at: datetime, now: datetime) -> None:
        """Keep a link until it is used or expires; expired ones are forgotten."""
        self._connection.execute(delete(CONSOLE_LINKS).where(CONSOLE_LINKS.c.expires_at <= now))
        self._connection.execute(insert(CONSOLE_LINKS).values(sha256=sha256, expires_at=expires_at))

    def take_link(self, sha256: str, now: datetime) -> bool:
        """Use a link up; return whether it was there and had not expired."""
        named = delete(CONSOLE_LINKS).where(CONSOLE_LINKS.c.sha256 == sha256, CONSOLE_LINKS.c.expires_at > now)
        return bool(self._connection.execute(named).rowcount)

"""The console's sessions: beginning one with a key or a link, using it, ending it.

Never keeps a token: what is stored is its SHA-256, so that who reads the database cannot sign in with it.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Protocol

from control.core.records import ManagementKey, Session
from control.core.refusals import ForbiddenError
from schemas.config import WorkspaceState

IDLE = timedelta(minutes=30)
"""How long a session may rest. Its use is noted to the minute, so it may end a minute before."""
LONGEST = timedelta(hours=12)
LINK_LASTS = timedelta(minutes=10)

_NOTED_EVERY = timedelta(minutes=1)
_TOKEN_BYTES = 32


class Sessions(Protocol):
    """The sessions and links that are kept, by the SHA-256 of their tokens."""

    def find(self, sha256: str) -> Session | None:
        """Return the session, whatever its age."""

    def add(self, session: Session) -> None:
        """Keep a new session."""

    def touch(self, sha256: str, now: datetime) -> None:
        """Note that the session was used."""

    def end(self, sha256: str) -> None:
        """Forget the session."""

    def end_older(self, *, used_before: datetime, begun_before: datetime) -> None:
        """Forget the sessions that were last used, or begun, before these moments."""

    def add_link(self, sha256: str, expires_at: datetime, now: datetime) -> None:
        """Keep a link until it is used or expires."""

    def take_link(self, sha256: str, now: datetime) -> bool:
        """Use a link up; return whether it was there and had not expired."""


class ManagementKeys(Protocol):
    """Looks up management keys."""

    def management_key(self, prefix: str) -> ManagementKey | None:
        """Return the management key that is not revoked."""


def begin(sessions: Sessions, now: datetime, *, workspace_id: str | None, key_prefix: str | None) -> str:
    """Begin a session of a workspace's key, or of the operator (both None); return its token, which is not kept."""
    sessions.end_older(used_before=now - IDLE, begun_before=now - LONGEST)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    sessions.add(Session(digest(token), workspace_id, key_prefix, begun_at=now, used_at=now))
    return token


def alive(sessions: Sessions, token: str, now: datetime) -> Session | None:
    """Return the session of a token; None where there is none, or it rested or lasted too long."""
    found = sessions.find(digest(token))
    if found is None or now - found.used_at >= IDLE or now - found.begun_at >= LONGEST:
        return None
    return found


def key_of(keys: ManagementKeys, session: Session) -> ManagementKey | None:
    """Return the management key that a lab's session began with; None where it was revoked or its lab suspended."""
    found = keys.management_key(session.key_prefix or "")
    suspended = found is not None and found.workspace_state is WorkspaceState.SUSPENDED
    return None if suspended else found


def is_to_be_noted(session: Session, now: datetime) -> bool:
    """Tell whether this use of the session is worth a write."""
    return now - session.used_at >= _NOTED_EVERY


def make_link(sessions: Sessions, now: datetime) -> str:
    """Return the token of a new link that makes whoever posts it the operator, once, within LINK_LASTS."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    sessions.add_link(digest(token), now + LINK_LASTS, now)
    return token


def use_link(sessions: Sessions, token: str, now: datetime) -> str:
    """Use a link up; return the token of the operator's new session. Raise ForbiddenError."""
    if not sessions.take_link(digest(token), now):
        raise ForbiddenError(
            "this link was used or is older than 10 minutes; type 'tollgate console link' for a new one",
            code="link_expired",
        )
    return begin(sessions, now, workspace_id=None, key_prefix=None)


def digest(token: str) -> str:
    """Return the form of a token that is stored: hex SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()


def form_token(token: str) -> str:
    """Return what a session's forms carry against forged requests: no other site can know it."""
    return hashlib.sha256(b"form:" + token.encode()).hexdigest()

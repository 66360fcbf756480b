"""Mints identifiers.

Never mints a credential: those need `secrets` and are minted by the package that stores their hash.
"""

import uuid
from datetime import datetime

from ulid import ULID


def mint(at: datetime | None = None) -> str:
    """Return a new ULID: 26 characters, unique, sorting by the millisecond of its making, or of `at`."""
    return str(ULID() if at is None else ULID.from_datetime(at))


def request_id() -> str:
    """Return a new random UUID, as the answers' ``x-request-id``."""
    return str(uuid.uuid4())

"""Mints identifiers.

Never mints a credential: those need `secrets` and are minted by the package that stores their hash.
"""

from ulid import ULID


def mint() -> str:
    """Give a new ULID: 26 characters, unique, sorting by the millisecond of its making."""
    return str(ULID())

"""Mints identifiers."""

import os
import uuid
from datetime import datetime

from ulid import ULID

_DIGITS = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs are written
_FIVE_BITS = bytes(_DIGITS[byte & 31] for byte in range(256))
"""Each random byte to the digit of its last five bits."""
_RANDOM_DIGITS = 16
_MILLISECONDS = [chr(_DIGITS[low >> 5]) + chr(_DIGITS[low & 31]) for low in range(1024)]
_RANDOM_BYTES = 8192
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def mint(at: datetime | None = None) -> str:
    """Return a new ULID: 26 characters, unique, sorting by the millisecond of its making, or of `at`."""
    return str(ULID() if at is None else ULID.from_datetime(at))


def first_of(at: datetime) -> str:
    """Return the lowest ULID of the millisecond of `at`: those of earlier ones are below it."""
    return str(ULID.from_int(int(at.timestamp() * 1000) << 80))


def request_id() -> str:
    """Return a new random UUID, as the answers' ``x-request-id``."""
    return str(uuid.uuid4())


class Minter:
    """Mints the same for one thread at a tenth of the cost: random bytes come from the system many at a time.

    What two ids of one moment (1,024 ms) begin with is written once.
    """

    def __init__(self) -> None:
        self._random = b""
        self._used = 0
        self._request_ids: list[str] = []
        self._moment = -1
        self._begun = ""

    def mint(self, at: datetime) -> str:
        """Return a new ULID of the millisecond of `at`."""
        moment, millisecond = divmod(int(at.timestamp() * 1000), 1024)
        if moment != self._moment:
            digits = [_DIGITS[moment >> shift & 31] for shift in range(35, -1, -5)]
            self._moment, self._begun = moment, bytes(digits).decode("ascii")
        return (
            self._begun + _MILLISECONDS[millisecond] + self._take(_RANDOM_DIGITS).translate(_FIVE_BITS).decode("ascii")
        )

    def request_id(self) -> str:
        """Return a new random UUID (RFC 9562, version 4)."""
        if not self._request_ids:
            digits = os.urandom(_RANDOM_BYTES).hex()
            self._request_ids = [
                f"{digits[at : at + 8]}-{digits[at + 8 : at + 12]}-4{digits[at + 13 : at + 16]}"
                f"-{_VARIANTS[digits[at + 16]]}{digits[at + 17 : at + 20]}-{digits[at + 20 : at + 32]}"
                for at in range(0, len(digits), 32)
            ]
        return self._request_ids.pop()

    def _take(self, size: int) -> bytes:
        start = self._used
        if start + size > len(self._random):
            self._random, start = os.urandom(_RANDOM_BYTES), 0
        self._used = start + size
        return self._random[start : start + size]

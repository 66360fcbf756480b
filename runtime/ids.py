"""Mints identifiers."""

import os
import uuid
from datetime import UTC, datetime, timedelta

from ulid import ULID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION = 7
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
    return str(ULID.from_int(_milliseconds(at) << 80))


def uuid7(at: datetime) -> str:
    """Return a new UUID of the millisecond of `at` (RFC 9562, version 7)."""
    return Minter().uuid7(at)


def moment_of(text: str) -> datetime | None:
    """Return the millisecond that a UUID was made in; None where the text is no UUID of version 7 (RFC 9562)."""
    try:
        read = uuid.UUID(text)
        made = EPOCH + timedelta(milliseconds=read.int >> 80)
    except (ValueError, OverflowError):
        return None
    return made if read.version == _VERSION and str(read) == text.lower() else None


def first_uuid7_of(at: datetime) -> str:
    """Return the lowest UUID of version 7 of the millisecond of `at`: those of earlier ones are below it."""
    digits = f"{_milliseconds(at):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def _milliseconds(at: datetime) -> int:
    """Return the whole milliseconds since 1970 of a moment in microseconds."""
    return int(at.timestamp() * 1e6 + 0.5) // 1000


class Minter:
    """Mints the same for one thread at a tenth of the cost: random bytes come from the system many at a time.

    What two ids of one moment (1,024 ms) begin with is written once.
    """

    def __init__(self) -> None:
        self._random = b""
        self._used = 0
        self._uuid_ends: list[str] = []
        self._moment = self._millisecond = -1
        self._begun = self._uuid_begun = ""

    def mint(self, at: datetime) -> str:
        """Return a new ULID of the millisecond of `at`."""
        moment, millisecond = divmod(_milliseconds(at), 1024)
        if moment != self._moment:
            digits = [_DIGITS[moment >> shift & 31] for shift in range(35, -1, -5)]
            self._moment, self._begun = moment, bytes(digits).decode("ascii")
        return (
            self._begun + _MILLISECONDS[millisecond] + self._take(_RANDOM_DIGITS).translate(_FIVE_BITS).decode("ascii")
        )

    def uuid7(self, at: datetime) -> str:
        """Return a new UUID of the millisecond of `at` (RFC 9562, version 7)."""
        millisecond = _milliseconds(at)
        if millisecond != self._millisecond:
            digits = f"{millisecond:012x}"
            self._millisecond, self._uuid_begun = millisecond, f"{digits[:8]}-{digits[8:]}-7"
        if not self._uuid_ends:
            digits = os.urandom(_RANDOM_BYTES).hex()
            self._uuid_ends = [
                f"{digits[start : start + 3]}-{_VARIANTS[digits[start + 3]]}{digits[start + 4 : start + 7]}"
                f"-{digits[start + 7 : start + 19]}"
                for start in range(0, len(digits) - 19, 19)
            ]
        return self._uuid_begun + self._uuid_ends.pop()

    def _take(self, size: int) -> bytes:
        start = self._used
        if start + size > len(self._random):
            self._random, start = os.urandom(_RANDOM_BYTES), 0
        self._used = start + size
        return self._random[start : start + size]

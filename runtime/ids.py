"""Mints identifiers."""

import os
import re
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
_UUID_END = re.compile("(.{3})(.{3})(.{12})")
"""The random digits of a UUID, but for the variant's, which is 8 for all: 72 bits in each millisecond."""


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
    """Mints the same for one thread at a tenth of the cost: random digits are made many at a time, and what the ids of
    one moment begin with is written once.
    """

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._moment = -1
        self._moment_begun = self._begun = self._uuid_begun = ""
        self._digits = ""
        self._used = 0
        self._uuid_ends: list[tuple[str, str, str]] = []

    def mint(self, at: datetime) -> str:
        """Return a new ULID of the millisecond of `at`."""
        if at is not self._at:
            self._begin(at)
        start = self._used
        if start == len(self._digits):
            self._digits, start = os.urandom(_RANDOM_BYTES).translate(_FIVE_BITS).decode("ascii"), 0
        self._used = end = start + _RANDOM_DIGITS
        return self._begun + self._digits[start:end]

    def uuid7(self, at: datetime) -> str:
        """Return a new UUID of the millisecond of `at` (RFC 9562, version 7)."""
        if at is not self._at:
            self._begin(at)
        if not self._uuid_ends:
            self._uuid_ends = _UUID_END.findall(os.urandom(_RANDOM_BYTES).hex())
        return self._uuid_begun % self._uuid_ends.pop()

    def _begin(self, at: datetime) -> None:
        self._at, millisecond = at, _milliseconds(at)
        moment, low = divmod(millisecond, 1024)
        if moment != self._moment:
            digits = [_DIGITS[moment >> shift & 31] for shift in range(35, -1, -5)]
            self._moment, self._moment_begun = moment, bytes(digits).decode("ascii")
        self._begun = self._moment_begun + _MILLISECONDS[low]
        self._uuid_begun = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7%s-8%s-%s"

"""What a client may take of a port: bytes, seconds, connections.

Never decides what becomes of who takes more; that is the connection's matter.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one port. Times in seconds; each is kept to within one tick of the server's clock."""

    head_within_s: float = 30
    """From a connection's beginning, or the first byte of a further request, to the end of the request's head."""
    body_within_s: float = 30
    """From the end of the head to the end of the body, where the route has no bound of its own."""
    idle_s: float = 75
    """How long a connection is kept between two requests."""
    linger_s: float = 5
    """How long what a client still sends is read and thrown away, so that it can read why it was refused."""
    write_within_s: float = 120
    """How long a client may take nothing of what was written for it."""
    max_head_bytes: int = 64 * 1024
    """Of a request's head; also of what stands between two bytes of a body: chunk extensions, trailers."""
    max_connections: int = 8192
    """Beyond it a connection is answered with 503 and closed."""


class BodyBudget:
    """How many bytes of bodies may be held at once, over all requests that share it."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    @property
    def left(self) -> int:
        """Return how many bytes are free."""
        return self._left

    def take(self, size: int) -> bool:
        """Take room for `size` bytes; return False where there is not that much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Give room back."""
        self._left += size


class BodyFault(Enum):
    """Why a request has no body that could be read; the value is what a client is told."""

    TOO_LARGE = "The body is too large."
    TOO_LATE = "The body did not arrive in time."
    NO_ROOM = "The server holds as many request bodies as it may."
    BROKEN_OFF = "The body broke off."
    MALFORMED = "The body's framing is not valid HTTP/1.1."

    @property
    def status(self) -> int:
        """Return the status that it is answered with."""
        return _FAULT_STATUS.get(self, 400)


_FAULT_STATUS = {BodyFault.TOO_LARGE: 413, BodyFault.TOO_LATE: 408, BodyFault.NO_ROOM: 503}

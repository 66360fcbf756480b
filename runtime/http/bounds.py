"""What a client may take of a port: bytes, seconds, connections."""

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
    """How long a client may take to read what was written for it at once: 256 KiB of a large answer."""
    stopping_s: float = 5
    """How long the rest of a request is waited for that is half there when the server stops."""
    max_head_bytes: int = 64 * 1024
    """Of a request's head; also of what stands between two bytes of a body: chunk extensions, trailers."""
    max_connections: int = 8192
    """Beyond it one that has no request gives way, the oldest first; else the new one is answered 503 and closed."""


class BodyFault(Enum):
    """Why a request has no body that could be read; the value is what a client is told."""

    TOO_LARGE = "The body is too large."
    TOO_LATE = "The body did not arrive in time."
    NO_ROOM = "The server holds as many request bodies as it may."
    NO_SHARE = "As many request bodies are held for this holder as may be."
    BROKEN_OFF = "The body broke off."
    MALFORMED = "The body's framing is not valid HTTP/1.1."

    @property
    def status(self) -> int:
        """Return the status that it is answered with."""
        return _FAULT_STATUS.get(self, 400)


_FAULT_STATUS = {BodyFault.TOO_LARGE: 413, BodyFault.TOO_LATE: 408, BodyFault.NO_ROOM: 503, BodyFault.NO_SHARE: 429}

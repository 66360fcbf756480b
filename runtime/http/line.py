"""What one exchange needs of the connection that it came over, and of that one's server."""

import asyncio
from typing import Protocol

from runtime.turns import Turns


class Port(Protocol):
    """What an exchange needs of its server."""

    is_stopping: bool
    """Whether no further request is taken."""
    turns: Turns


class Line(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    undrained: asyncio.Future[None] | None
    """Pending while the client does not take what was written."""

    @property
    def port(self) -> Port:
        """Return the server."""

    def pause_reading(self) -> None:
        """Read no further for now."""

    def resume_reading(self) -> None:
        """Read on."""

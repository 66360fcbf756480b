"""Gives others their turn of the event loop where an upstream always has more, around any `Upstream`.

Without it one stream that is written as fast as it is read never waits, and nothing else runs.
"""

import asyncio

from proxy.core.exchange import Failure, UpstreamRequest
from proxy.core.replies import Headers
from proxy.flow import Answer, Upstream

TURN_BYTES = 64 * 1024
TURN_CHUNKS = 32
"""So many are read in one turn; a small one costs tens of microseconds, so that this is a millisecond or two."""


class InTurns:
    """The `Upstream` port."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def open(self, request: UpstreamRequest) -> Answer | Failure:
        """Return the answer when its head is there."""
        opened = await self._upstream.open(request)
        return opened if isinstance(opened, Failure) else _AnswerInTurns(opened)


class _AnswerInTurns:
    """The `Answer` port. A chunk costs a comparison more, and each so many go round the loop once."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status = answer.status
        self.close = answer.close
        self._bytes = self._chunks = 0

    @property
    def headers(self) -> Headers:
        return self._answer.headers

    @property
    def is_event_stream(self) -> bool:
        return self._answer.is_event_stream

    async def read_chunk(self) -> bytes | None:
        if self._bytes >= TURN_BYTES or self._chunks >= TURN_CHUNKS:
            self._bytes = self._chunks = 0
            await asyncio.sleep(0)
        chunk = await self._answer.read_chunk()
        self._chunks += 1
        self._bytes += len(chunk or b"")
        return chunk

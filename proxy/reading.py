"""Reads an upstream's answer within its bounds: its beginning, to see what it is, and the whole of a plain one."""

from collections.abc import Callable
from typing import Protocol

from proxy.core import endings
from proxy.core.calls import BrokenOffError
from proxy.core.replies import Headers
from proxy.deadlines import Deadline
from proxy.dialects import forms
from runtime.memory_files import HEAP_BYTES, Body, MemoryFile, spilled

Hold = Callable[[int], None]


class Answer(Protocol):
    """An upstream's answer. Reading raises BrokenOffError where it ends before it is whole."""

    status: int
    headers: Headers
    """Those that may pass."""
    is_event_stream: bool
    """Whether its content type says that the body is server-sent events."""

    def whole_at_once(self) -> bytes | None:
        """Return the whole body where it is small and has come, and nothing of it was read; None: read it."""

    async def read_chunk(self) -> bytes | None:
        """Return what has arrived as soon as it has; None at the end."""

    def expect_end(self) -> None:
        """Say that only its end is missing, which `close` may let come in the background."""

    async def close(self) -> None:
        """Give the connection back; an answer that was not read to its end is ended at once."""


async def beginning(answer: Answer, bound: Deadline, idle_s: float, hold: Hold) -> tuple[bytes, bool]:
    """Return the first bytes, as many as it takes to see whether it is a stream, and whether it is."""
    begun = answer.whole_at_once() or b""
    if begun:
        found = forms.is_stream(begun, declared=answer.is_event_stream)
        return begun, answer.is_event_stream if found is None else found
    bound.expect(idle_s)
    while (chunk := await answer.read_chunk()) is not None:
        bound.expect(idle_s)
        begun += chunk
        hold(len(begun))
        found = forms.is_stream(begun, declared=answer.is_event_stream)
        if found is not None:
            return begun, found
    return begun, answer.is_event_stream


async def whole(answer: Answer, bound: Deadline, idle_s: float, hold: Hold, begun: bytes = b"") -> Body:
    """Return the whole body, of which `begun` has been read. Raise BrokenOffError where it is too large.

    `hold` is told how much there is; it raises AnswersFullError.
    """
    pieces = [begun]
    file: MemoryFile | None = None  # in place of pieces, where they are many
    size = len(begun)
    bound.expect(idle_s)
    while (chunk := await answer.read_chunk()) is not None:
        bound.expect(idle_s)
        if file is None:
            pieces.append(chunk)
        else:
            file.append(chunk)
        if (size := size + len(chunk)) > endings.MAX_PLAIN_BYTES:
            raise BrokenOffError("the answer is too large")
        hold(size)
        if size > HEAP_BYTES and file is None and (file := spilled(pieces)) is not None:
            pieces = []
    return file or b"".join(pieces)

"""The fakes of a directory, windows, slots and a sink, each held to its port's contract suite."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from proxy.core.calls import Envelope, Key, Model, Route, SpoolUnavailableError, Unserved
from proxy.core.replies import Headers, Reply
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute
from proxy.limits.windows import RateChain, Refusal, Reservation
from proxy.windows.memory import MemoryWindows
from schemas.usage import Outcome, UsageDraft

NOW = datetime(2025, 3, 1, 12, 30, 15, 250_999, tzinfo=UTC)
"""The time in tests that do not move it."""


WORKSPACE = "workspace-1"


class FakeClient:
    """The `Client` port: keeps what it got, and goes away or stops reading when a test says so."""

    def __init__(self, journal: list[str], body: bytes | Reply, authorization: bytes | None) -> None:
        self.trace = b""
        self.authorization = authorization
        self.envelope: Envelope | Reply | None = None
        self.request_id = ""
        self.aborted = False
        self.status: int | None = None
        self.headers: Headers = []
        self.got = b""
        self.pieces: list[bytes] = []
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.watcher: Callable[[], None] | None = None
        self.bodies_read = self.bodies_released = 0
        self._body = body
        self._journal = journal

    @property
    def is_answered(self) -> bool:
        return self.status is not None

    def release_body(self) -> None:
        self.bodies_released += 1

    async def body(self, workspace_id: str) -> bytes | Reply:
        assert workspace_id == WORKSPACE
        self.bodies_read += 1
        return self._body

    async def start(self, status: int, headers: Headers, lines: bytes = b"") -> None:
        await self.reading.wait()
        assert self.status is None, "an answer was begun twice"
        further = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
        self.status, self.headers = status, headers + [(name, value) for name, _, value in further]
        self._journal.append("start")

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        await self.reading.wait()
        assert self.status is not None
        assert not self.ended, "something was sent after the end"
        self.ended = last
        self.got += chunk
        self.pieces.append(chunk)
        self._journal.append("last" if last else "send")

    async def reply(self, reply: Reply) -> None:
        await self.start(reply.status, reply.headers, reply.lines)
        await self.send(reply.body if reply.large is None else reply.large[:], last=True)

    def abort(self) -> None:
        assert self.status is not None
        assert not self.ended
        self.ended = self.aborted = True
        self._journal.append("abort")

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        self.watcher = callback

    def leave(self) -> None:
        """Go away, as the flow would be told."""
        assert self.watcher is not None, "nobody watches the client"
        self.watcher()

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


@dataclass
class FakeDirectory:
    """The `Directory` port over dicts."""

    keys: dict[str, Key] = field(default_factory=dict)
    routes: dict[tuple[str, str], Route | Unserved] = field(default_factory=dict)

    def key(self, prefix: str) -> Key | None:
        return self.keys.get(prefix)

    def route(self, key: Key, slug: str, api: ApiRoute = chat_completions.ROUTE) -> Route | Unserved | None:
        found = self.routes.get((key.group_id, slug))
        return replace(found, name=api.name) if isinstance(found, Route) and found.name is not api.name else found

    def models(self, key: Key) -> list[Model]:
        return [Model(slug, NOW) for group, slug in self.routes if group == key.group_id]


class FakeWindows(MemoryWindows):
    """The `Windows` port: windows on a clock that is moved by hand, which fail when told and note how places end."""

    def __init__(self, clock_s: Callable[[], float] = lambda: 3_000_000.0) -> None:
        super().__init__(clock_s)
        self.failure: Exception | None = None
        self.taken: list[tuple[RateChain, Reservation]] = []
        self.settled: list[int] = []
        self.released = 0

    def reserve_at_once(self, chain: RateChain, tokens: int, output_tokens: int = 0) -> Reservation | Refusal:
        if self.failure is not None:
            raise self.failure
        outcome = super().reserve_at_once(chain, tokens, output_tokens)
        if isinstance(outcome, Reservation):
            self.taken.append((chain, outcome))
        return outcome

    def settle(self, reservation: Reservation, tokens: int, output_tokens: int = 0) -> None:
        self.settled.append(tokens)
        super().settle(reservation, tokens, output_tokens)

    def release(self, reservation: Reservation) -> None:
        self.released += 1
        super().release(reservation)


class FakeSlots:
    """The `InFlight` port over a dict."""

    def __init__(self, count: int = 8, size: int = 24 * 1024 - 4) -> None:
        self.open: dict[int, bytes] = {}
        self._free = list(range(count))
        self._size = size

    @property
    def is_full(self) -> bool:
        return not self._free

    def open_slot(self, facts: bytes) -> int:
        if not self._free or len(facts) > self._size:
            raise SpoolUnavailableError("too many requests are in flight")
        slot = self._free.pop()
        self.open[slot] = facts
        return slot

    def close_slot(self, slot: int) -> None:
        del self.open[slot]
        self._free.append(slot)


class ListSink:
    """The `UsageSink` port over a list."""

    def __init__(self, journal: list[str] | None = None) -> None:
        self.drafts: list[UsageDraft] = []
        self.blocked: str | None = None
        self.failure: SpoolUnavailableError | None = None
        self.writing = asyncio.Event()
        self.held: asyncio.Event | None = None
        """Set by a test: what is put waits for it, in the midst of being written."""
        self._journal = [] if journal is None else journal
        self._tasks: set[asyncio.Task[None]] = set()

    def append(self, event: bytes, outcome: Outcome, told: Callable[[int | SpoolUnavailableError], None]) -> None:
        self._tasks.add(asyncio.create_task(self._keep(event, outcome, told)))

    async def _keep(self, event: bytes, outcome: Outcome, told: Callable[[int | SpoolUnavailableError], None]) -> None:
        if self.failure is not None:
            told(self.failure)
            return
        self.writing.set()
        if self.held is not None:
            await self.held.wait()
        draft = UsageDraft.model_validate_json(event)
        assert draft.outcome is outcome
        self.drafts.append(draft)
        self._journal.append("put")
        told(len(self.drafts))

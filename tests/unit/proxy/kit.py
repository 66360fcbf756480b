"""A gateway whose every neighbour is a fake: what its client and its upstream do is written down by each test.

Times are those of the loop, which `virtual_time` moves.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple

from proxy.admission import Admissions
from proxy.core.calls import Failure, Key, Route, UpstreamRequest
from proxy.core.replies import Headers, Reply
from proxy.deadlines import Drains
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute
from proxy.flow import Gateway
from proxy.large import Large
from proxy.limits.days import DayCounters
from proxy.limits.windows import RateChain, WindowLimit
from proxy.refusals import Refusals
from proxy.request_log import RequestLog
from proxy.shares import ReadingRates, WorkspaceShares
from proxy.unmetered import Unmetered
from proxy.windows.memory import MemoryPlaces
from runtime.beside import Beside
from runtime.deadlines import Deadlines
from runtime.shares import Shares
from runtime.vault import Vault
from schemas.limits import LimitType, RateLimitUnit
from schemas.usage import UsageDraft
from tests.unit.proxy import fakes
from tests.unit.proxy.fakes import FakeClient, FakeDirectory, FakeSlots, FakeWindows, ListSink

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

SLUG = "lab/model"
GROUP = "group-1"
PARENT = "parent-1"
CHARGED = (GROUP, PARENT)
WORKSPACE = fakes.WORKSPACE
TEXT_KEY = b"sky_abcdefghijkl.0123456789abcdef0123456789abcdef"
NOW = fakes.NOW
INSTANCE = "instance-1"

FIRST_BYTE_S, IDLE_S, DRAIN_S, REQUEST_S = 300.0, 120.0, 30.0, 3600.0
MOST_OUTPUT = 16_384


def key(**changes: Any) -> Key:
    digest = hashlib.sha256(TEXT_KEY).digest()
    return replace(Key(TEXT_KEY[:16].decode(), digest, WORKSPACE, GROUP, suspended=False), **changes)


def rate(
    type_: LimitType,
    threshold: int,
    unit: RateLimitUnit = RateLimitUnit.MINUTE,
    *,
    source: str = PARENT,
    counting: str = GROUP,
) -> WindowLimit:
    """Return a rate limit, by default one that the group inherits from its parent: INDEPENDENT."""
    return WindowLimit(type_, unit, threshold, source, counting)


def rates(*limits: WindowLimit) -> RateChain:
    return RateChain(PARENT, SLUG, limits)


ROOMY = (
    rate(LimitType.REQUEST, 10**6, source=GROUP, counting=GROUP),
    rate(LimitType.TOKEN, 10**9, source=PARENT, counting=PARENT),
)
"""Rate limits of a group and its parent, CASCADING, that no test reaches."""


ROOM_IN_FLIGHT = tuple(
    rate(LimitType.REQUEST, 10**6, RateLimitUnit.CONCURRENT, source=group, counting=group) for group in (GROUP, PARENT)
)
"""The same of requests in flight."""


def route(**changes: Any) -> Route:
    """Return a route of a group below its parent, whose limits are CASCADING."""
    plain = Route(
        slug=SLUG,
        workspace_id=WORKSPACE,
        group_id=GROUP,
        external_entity_id="customer-1",
        charged_groups=CHARGED,
        url="https://up.example/v1/chat/completions",
        by_operator=False,
        target_model="their-model",
        credential=None,
        stored_metadata_only=False,
        day_limits=(),
        rates=rates(*ROOMY),
    )
    return replace(plain, **changes)


def independent(*limits: WindowLimit, **changes: Any) -> Route:
    """Return the same route with INDEPENDENT limits: only the group itself is charged."""
    return route(**{"charged_groups": (GROUP,), "rates": rates(*limits)} | changes)


VAULT = Vault(bytes(32))


async def none_is_counted(_: str) -> bool:
    """Stand for a ledger that holds nothing."""
    return False


class Hang:
    """A step of a script: nothing more comes."""


Step = bytes | Exception | Hang | float | Callable[[], None]
"""What an upstream does next: sends bytes, fails, falls silent, waits that many seconds, or lets something happen."""


async def _perform(steps: list[Step]) -> bytes | None:
    while steps:
        step = steps.pop(0)
        if isinstance(step, bytes):
            return step
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Hang):
            await asyncio.sleep(10**9)
        elif isinstance(step, float):
            await asyncio.sleep(step)
        else:
            step()
    return None


class FakeAnswer:
    """The `Answer` port: plays its steps."""

    def __init__(self, steps: Sequence[Step], status: int, content_type: str | None, headers: Headers) -> None:
        self.status = status
        self.headers = [*headers] if content_type is None else [(b"content-type", content_type.encode()), *headers]
        self.is_event_stream = (content_type or "").startswith("text/event-stream")
        self.closed = 0
        self.end_expected = False
        self._steps = list(steps)

    async def read_chunk(self) -> bytes | None:
        assert not self.closed
        return await _perform(self._steps)

    def whole_at_once(self) -> bytes | None:
        return None

    def expect_end(self) -> None:
        assert not self.closed
        self.end_expected = True

    async def close(self) -> None:
        self.closed += 1


class ScriptedUpstream:
    """The `Upstream` port: does what was written down."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []
        self.given: list[FakeAnswer] = []
        self.answer: FakeAnswer | None = None
        self.failure: Failure | Exception | None = None
        self.before: list[Step] = []

    def answers(
        self,
        *steps: Step,
        status: int = 200,
        content_type: str | None = "application/json",
        headers: Headers | None = None,
        before: Sequence[Step] = (),
    ) -> None:
        """Write down an answer; `before` is what happens until its head is there."""
        self.answer = FakeAnswer(steps, status, content_type, headers or [])
        self.before = list(before)

    def streams(self, *steps: Step, before: Sequence[Step] = ()) -> None:
        self.answers(*steps, content_type="text/event-stream; charset=utf-8", before=before)

    def fails(self, failure: Failure | Exception, before: Sequence[Step] = ()) -> None:
        self.failure = failure
        self.before = list(before)

    async def open(self, request: UpstreamRequest) -> FakeAnswer | Failure:
        self.requests.append(request)
        answer = self.answer
        await _perform(self.before)
        if isinstance(self.failure, Exception):
            raise self.failure
        if self.failure is not None:
            return self.failure
        assert answer is not None, "no answer was written down"
        self.given.append(answer)
        return answer


class Here(Beside):
    """Does at once what would be done beside: virtual time knows no threads."""

    async def run(self, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        return work(*args)


class House:
    """A gateway and all its neighbours."""

    _minted = 0

    def __init__(
        self,
        *,
        drain_max: int = 10,
        accept_bearer: bool = False,
        most_in_flight: int = 400,
        answer_bytes: int = 2**30,
        passed_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`passed_s` is by how many seconds its clocks are beyond where they begin."""
        self.answers = Shares(answer_bytes, 0.25)
        shares = WorkspaceShares(Shares(most_in_flight, 0.25), self.answers, ReadingRates(1, 2**40, lambda: 0.0))
        self.journal: list[str] = []
        self.sink = ListSink(self.journal)
        self.upstream = ScriptedUpstream()
        self.windows = FakeWindows(lambda: 3_000_000 + passed_s())
        self.slots = FakeSlots()
        self.days = DayCounters(INSTANCE)
        self.directory = FakeDirectory({key().prefix: key()}, {(GROUP, SLUG): route(concurrent=ROOM_IN_FLIGHT)})
        self.drains = Drains(DRAIN_S, drain_max)
        large = Large(Here(), at_once_bytes=2**40)
        self.admissions = Admissions(
            directory=self.directory,
            day_counters=self.days,
            rate_windows=self.windows,
            places=MemoryPlaces(),
            in_flight=self.slots,
            accept_bearer=accept_bearer,
            clock=lambda: NOW + timedelta(seconds=passed_s()),
            mint=lambda _: self._mint("key"),
            mint_request=lambda _: self._mint("request"),
            most_output_tokens=MOST_OUTPUT,
            large=large,
        )
        self._build(shares, large)

    def _build(self, shares: WorkspaceShares, large: Large) -> None:
        deadlines, admissions = Deadlines(), self.admissions
        self.requests = RequestLog(INSTANCE, deadlines, takes_all=False)
        of_both: dict[str, Any] = {
            "admissions": admissions,
            "upstream": self.upstream,
            "deadlines": deadlines,
            "first_byte_s": FIRST_BYTE_S,
            "idle_s": IDLE_S,
            "request_s": REQUEST_S,
            "shares": shares,
        }
        self.refusals = Refusals(admissions, self.requests)
        self.gateway = Gateway(
            sink=self.sink, drains=self.drains, large=large, requests=self.requests, refusals=self.refusals, **of_both
        )
        self.unmetered = Unmetered(**of_both)

    def client(self, body: bytes | Reply, authorization: bytes | None = b"Api-Key " + TEXT_KEY) -> FakeClient:
        return FakeClient(self.journal, body, authorization)

    async def serve(self, client: FakeClient, api: ApiRoute = chat_completions.ROUTE) -> FakeClient:
        await self.gateway.complete(client, api)
        return client

    @property
    def draft(self) -> UsageDraft:
        """The one event there is."""
        (draft,) = self.sink.drafts
        return draft

    def assert_all_given_back(self) -> None:
        """Assert what must hold whichever way requests end."""
        assert not self.slots.open, "a slot was left open"
        routes = [route for route in self.directory.routes.values() if isinstance(route, Route)]
        chains = [route.rates for route in routes]
        assert all(reservation.ended and chain in chains for chain, reservation in self.windows.taken)
        assert len(self.windows.settled) + self.windows.released == len(self.windows.taken)
        used = [draft.tokens.input_tokens + draft.tokens.output_tokens for draft in self.sink.drafts]
        assert self.windows.settled == used
        for group in {group for route in routes for group in route.charged_groups}:
            assert self.days.total(group, SLUG, NOW.date()) == (len(used), sum(used))
        assert [answer.closed for answer in self.upstream.given] == [1] * len(self.upstream.given)
        assert self.drains.open == 0
        assert not len(self.admissions.places), "a place among those in flight was kept"
        assert self.answers.taken == 0

    def _mint(self, kind: str) -> str:
        self._minted += 1
        return f"{kind}-{self._minted}"

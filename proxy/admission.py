"""Decides who gets in: the key, the route, the day's limits, the rate windows, a slot (contract 3, 3.1).

Never takes from one limit what another then refuses: all of them, over all charged groups, or none.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from proxy.core import endings, keys, replies, usage_event
from proxy.core.calls import Envelope, Key, Model, Route, SpoolUnavailableError, Unserved, UpstreamRequest
from proxy.core.endings import Ending
from proxy.core.replies import Headers, Reply
from proxy.dialects import answers, chat, media
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute, Stream
from proxy.large import Large, Read
from proxy.limits import concurrency, days, estimate, windows
from proxy.limits.estimate import TokenCounts
from runtime.clock import Clock
from schemas.usage import Outcome, UsageSource

_MOST_KNOWN = 100_000
"""Authorization headers whose key is remembered, at 150 bytes each."""


class Directory(Protocol):
    """Knows keys, and where they lead."""

    def key(self, prefix: str) -> Key | None:
        """Return a live key by its prefix: the same object until something changes that it depends on."""

    def route(self, key: Key, slug: str, api: ApiRoute = chat_completions.ROUTE) -> Route | Unserved | None:
        """Return where a key's calls of a slug go, or why nowhere; None where it may not call it so."""

    def models(self, key: Key) -> list[Model]:
        """Return what a key may call."""


class Windows(Protocol):
    """Rate windows."""

    async def reserve(
        self, chain: windows.RateChain, tokens: int, output_tokens: int = 0
    ) -> windows.Reservation | windows.Refusal:
        """Take a place in every window of the chain, or in none; `output_tokens` are part of `tokens`."""

    def settle(self, reservation: windows.Reservation, tokens: int, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used, sooner or later; no answer waits for it."""

    def release(self, reservation: windows.Reservation) -> None:
        """Give the tokens back, never the place in a REQUEST window."""

    def forget_idle(self) -> None:
        """Drop some of what counts nothing; to be called every few seconds."""


class Places(Protocol):
    """Places among the requests in flight that limits bound."""

    def __len__(self) -> int:
        """Return of how many limits places are taken here."""

    async def reserve(
        self, root_group: str, slug: str, limits: Sequence[windows.WindowLimit]
    ) -> concurrency.Places | windows.Refusal:
        """Take a place in every limit of a request, or in none."""

    def release(self, places: concurrency.Places) -> None:
        """Give the places back, once: what comes later is ignored."""


class InFlight(Protocol):
    """Remembers admitted requests beyond the life of the process."""

    @property
    def is_full(self) -> bool:
        """Whether as many requests are in flight as there may be."""

    def open_slot(self, facts: bytes) -> int:
        """Keep what the request's event would need. Raise SpoolUnavailableError where there is no room."""

    def close_slot(self, slot: int) -> None:
        """Forget it: its event is durable, or there is to be none."""


NOT_COUNTED = answers.Count(estimate.NOTHING.tokens, UsageSource.NONE)


@dataclass(slots=True)
class Call:
    """One admitted request on its way."""

    api: ApiRoute
    asked: chat.ChatRequest
    route: Route
    request_id: str
    event: bytes
    """The beginning of its usage event."""
    expected: TokenCounts
    """The estimate to bill where the process dies; else `likely` is a better one."""
    day: days.DayReservation
    rate: windows.Reservation
    places: concurrency.Places
    slot: int
    headers: Headers
    """What every answer to it carries."""
    costs: media.Costs
    """Of media in its prompt."""
    envelope: Envelope | None = None
    """What goes on beside its body."""
    started_s: float = 0.0
    """On the event loop's clock, like `first_byte_s`."""
    answered: bool | None = None
    """Whether the upstream's answer is a 2xx; None: it has not begun."""
    first_byte_s: float | None = None
    stream: Stream | None = None
    prompt_tokens: int | None = None
    """Those of a prompt, where they were made already: of large bodies, and of those that were given up."""

    def upstream_request(self) -> UpstreamRequest:
        """Return what is sent upstream."""
        return upstream_request(self.asked, self.route, self.api, self.request_id, self.envelope)

    def give_up_body(self, sent: UpstreamRequest, release: Callable[[], None]) -> None:
        """Forget the body once it has been sent. What would be billed without counts is made of it first."""
        sent.body = b""
        self.prompt_tokens = self.likely().input_tokens
        self.asked = replace(self.asked, body=b"")
        release()

    def cut_short(self, outcome: Outcome, reply: Reply) -> Ending:
        """Return how it ends where its upstream had not come to its end; `reply` tells a client that still waits."""
        return endings.cut_short(outcome, reply, stream=self.stream, answered=self.answered, likely=self.likely)

    def likely(self) -> TokenCounts:
        """Return the counts to bill where nobody has reported any: made from the body, so asked for only then."""
        prompt = self.prompt_tokens
        if prompt is None:
            prompt = self.api.prompt_tokens(self.asked.body, otherwise=self.expected.input_tokens, costs=self.costs)
        return self.expected._replace(input_tokens=prompt)

    def counted(self, count: answers.Count) -> answers.Count:
        """Return what is billed of a count: of a route that is opaque to us nothing is estimated."""
        return NOT_COUNTED if self.api.is_opaque and count.source is UsageSource.ESTIMATED else count

    def ended(self, outcome: Outcome, count: answers.Count, now_s: float) -> bytes:
        """Return its usage event."""
        started_s, first_byte_s = self.started_s, self.first_byte_s
        first_byte_ms = None if first_byte_s is None else round((first_byte_s - started_s) * 1000)
        latency_ms = round((now_s - started_s) * 1000)
        cost, times_ms = self.day.cost_of(count.tokens), (latency_ms, first_byte_ms)
        return usage_event.ended(self.event, count.tokens, count.source, outcome, times_ms, cost)


class Admissions:
    """Lets requests in, and takes back or settles what they hold."""

    def __init__(
        self,
        *,
        directory: Directory,
        day_counters: days.DayCounters,
        rate_windows: Windows,
        places: Places,
        in_flight: InFlight,
        accept_bearer: bool,
        clock: Clock,
        mint: Callable[[datetime], str],
        mint_request: Callable[[datetime], str],
        most_output_tokens: int,
        large: Large,
    ) -> None:
        self._directory = directory
        self._days = day_counters
        self._windows = rate_windows
        self._in_flight = in_flight
        self._accept_bearer = accept_bearer
        self._clock = clock
        self._mint, self._mint_request = mint, mint_request
        self._large = large
        self._known: dict[bytes, Key] = {}
        """By the SHA-256 of an Authorization header the key that it was found to hold: never the key's own text."""
        self.places = places
        self._most_output = most_output_tokens
        self._sizes = estimate.CompletionSizes()

    def authenticate(self, authorization: bytes | None) -> Key | Reply:
        """Return the key of an Authorization header, or the answer that refuses it."""
        digest = hashlib.sha256(authorization or b"").digest()
        key = self._known.get(digest)
        if key is None or self._directory.key(key.prefix) is not key:  # something has changed that it depends on
            found = self._look_up(authorization)
            if isinstance(found, Reply):
                return found
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[digest] = key = found
        if key.disabled:
            return replies.key_disabled(key)
        if key.expires_at is not None and key.expires_at <= self._clock():
            return replies.key_expired(key)
        return replies.suspended(key) if key.suspended else key

    def _look_up(self, authorization: bytes | None) -> Key | Reply:
        sent = keys.read(authorization, accept_bearer=self._accept_bearer)
        if isinstance(sent, keys.BadCredential):
            return replies.unauthorized(sent.message)
        key = self._directory.key(sent.prefix)
        if not keys.matches(sent.key, key.sha256 if key else b"") or key is None:
            return replies.unknown_key()
        return key

    def expect(self, authorization: bytes | None) -> Key | Reply:
        """Return the key of a call whose body may come, or the answer that refuses it before."""
        key = self.authenticate(authorization)
        return replies.full("requests in flight") if isinstance(key, Key) and self._in_flight.is_full else key

    def models(self, authorization: bytes | None) -> list[Model] | Reply:
        """Return what the key of an Authorization header may call."""
        key = self.authenticate(authorization)
        return key if isinstance(key, Reply) else self._directory.models(key)

    async def find(self, key: Key, body: bytes, api: ApiRoute, slug: str | None = None) -> tuple[Read, Route] | Reply:
        """Return what a body asks and where it goes, or the answer that refuses it. `slug`: where the path names it."""
        read = await self._large.request(api, body)
        if isinstance(read, chat.Invalid):
            return replies.bad_request(read.message, read.param)
        slug = read.request.slug if slug is None else slug
        route = self._directory.route(key, slug, api)
        if route is None:
            return replies.model_not_found(slug)
        if isinstance(route, Unserved):
            return replies.unserved(slug)
        if read.upstream_object is not None and not route.upstream_objects:
            return replies.names_upstream_object(read.upstream_object)
        return read, route

    def request_id(self) -> str:
        """Return the id of a request that is not admitted: it names this moment."""
        return self._mint_request(self._clock())

    async def admit(
        self, key: Key, body: bytes, api: ApiRoute = chat_completions.ROUTE, envelope: Envelope | None = None
    ) -> Call | Reply:
        """Let a request in, holding a place in every limit and a slot; or give the answer that refuses it."""
        found = await self.find(key, body, api, None if envelope is None else envelope.slug)
        if isinstance(found, Reply):
            return found
        read, route = found
        asked, now = read.request, self._clock()
        expected = self._expected(read, route, api)
        held = await self._reserve(route, expected, now)
        if isinstance(held, Reply):
            return held
        day, rate, places = held
        request_id = self._mint_request(now)
        event = usage_event.begun(
            idempotency_key=self._mint(now),
            request_id=request_id,
            admitted_at=now,
            route=route.event,
            api_key_prefix=key.prefix,
            request_metadata=asked.metadata,
            stream=asked.stream,
        )
        source = UsageSource.NONE if api.is_opaque else UsageSource.ESTIMATED
        try:
            slot = self._in_flight.open_slot(
                usage_event.in_flight(event, expected.tokens, source, day.cost_of(expected.tokens))
            )
        except SpoolUnavailableError as error:
            self._days.release(day)
            self._windows.release(rate)
            self.places.release(places)
            return replies.full("requests in flight") if self._in_flight.is_full else replies.unavailable(str(error))
        headers = [(b"x-request-id", request_id.encode()), *replies.rate_headers(rate.standings)]
        holds = (*held, slot, headers, self._large.costs, envelope)
        return Call(api, asked, route, request_id, event, expected.tokens, *holds, prompt_tokens=read.prompt_tokens)

    def _expected(self, read: Read, route: Route, api: ApiRoute) -> estimate.Expected:
        if api.is_opaque:
            return estimate.NOTHING
        likely = self._sizes.likely(route.group_id, route.slug) if api.has_output else 0
        claims = (read.request.choices, read.request.max_tokens)
        return estimate.expected(read.prompt_bound, *claims, likely, route.max_output_tokens or self._most_output)

    async def _reserve(
        self, route: Route, expected: estimate.Expected, now: datetime
    ) -> tuple[days.DayReservation, windows.Reservation, concurrency.Places] | Reply:
        """Take a place in the day, then among those in flight, then in the rate windows, or in none of them."""
        tokens, output = expected.reserved, expected.reserved_output
        counted = (route.slug, route.charged_groups, route.day_limits, tokens, output)
        day = self._days.reserve(now.date(), *counted, route.unit_cost(now))
        if isinstance(day, days.DayRefusal):
            return replies.used_up(route.slug, day, now, route.group_id)
        places: concurrency.Places = []
        rate: windows.Reservation | windows.Refusal | None = None
        try:
            if route.concurrent:
                taken = await self.places.reserve(route.rates.root_group, route.slug, route.concurrent)
                if isinstance(taken, windows.Refusal):
                    return replies.rate_limited(route.slug, taken, route.group_id)
                places = taken
            rate = await self._windows.reserve(route.rates, tokens, output)
        finally:
            if not isinstance(rate, windows.Reservation):
                self._days.release(day)
                self.places.release(places)
        return (
            (day, rate, places)
            if isinstance(rate, windows.Reservation)
            else replies.rate_limited(route.slug, rate, route.group_id)
        )

    def settle(self, call: Call, sequence: int, count: answers.Count) -> None:
        """Replace what a call holds by what it used; its event is durable as `sequence`."""
        output = count.tokens.output_tokens
        used = count.tokens.input_tokens + output
        self._in_flight.close_slot(call.slot)
        self._days.settle(call.day, sequence, used, output, call.day.cost_of(count.tokens))
        self._windows.settle(call.rate, used, output)
        self.places.release(call.places)
        if count.source is UsageSource.PROVIDER and call.api.has_output and call.asked.max_tokens is None:
            route = call.route  # where its client gave a bound, the answer says nothing of what one has without
            self._sizes.learn(route.group_id, route.slug, count.tokens.output_tokens, count.choices)

    def release(self, call: Call) -> None:
        """Give back what a call holds: there will be no event."""
        self._in_flight.close_slot(call.slot)
        self._days.release(call.day)
        self._windows.release(call.rate)
        self.places.release(call.places)


def upstream_request(
    asked: chat.ChatRequest, route: Route, api: ApiRoute, request_id: str, envelope: Envelope | None
) -> UpstreamRequest:
    """Return what is sent upstream for a request."""
    return UpstreamRequest(
        route.url,
        api.upstream_body(asked, route.target_model, stored_metadata_only=route.stored_metadata_only),
        request_id,
        route.credential,
        route.by_operator,
        route.dialect,
        workspace_id=route.workspace_id,
        envelope=envelope,
        max_output_tokens=route.max_output_tokens,
    )

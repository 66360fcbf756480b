"""Decides who gets in: the key, the route, the day's limits, the rate windows, a slot (contract 3, 3.1).

Never takes from one limit what another then refuses: all of them, over all charged groups, or none.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from proxy.call import Call
from proxy.core import keys, replies, usage_event
from proxy.core.calls import Envelope, Key, Model, Route, SpoolUnavailableError, Unserved
from proxy.core.replies import Reply
from proxy.dialects import answers, chat
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute
from proxy.large import Large, Read
from proxy.limits import concurrency, days, estimate, reservations, windows
from runtime.clock import Clock
from runtime.memory_files import Body, MemoryFile
from schemas.usage import UsageSource

_SOURCE = (UsageSource.ESTIMATED, UsageSource.NONE)
"""Of what is billed where the process dies: of a route that is opaque to us nothing is estimated."""
_PATIENCE_MS = 100
"""How long a request waits for the end of a rate's refusal that ends so soon, rather than being refused (ADR 39)."""
_ASKING_MS = 5
"""What of its patience each wait costs besides: where others take each place first it does not ask for ever."""
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

    def reserve_at_once(
        self, chain: windows.RateChain, tokens: int, output_tokens: int = 0
    ) -> windows.Reservation | windows.Refusal | None:
        """Do the same where nobody has to be asked; None: `reserve` must."""

    def settle(self, reservation: windows.Reservation, tokens: int, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used, sooner or later; no answer waits for it."""

    def release(self, reservation: windows.Reservation) -> None:
        """Give the tokens back, never the place in a REQUEST window."""

    def forget_idle(self) -> None:
        """Drop some of what counts nothing; to be called every few seconds."""


class ConcurrencyLimits(Protocol):
    """Places among the requests in flight that limits bound."""

    def __len__(self) -> int:
        """Return of how many limits places are taken here."""

    async def reserve(
        self, root_group: str, slug: str, limits: Sequence[windows.WindowLimit]
    ) -> concurrency.HeldPlaces | windows.Refusal:
        """Take a place in every limit of a request, or in none."""

    def release(self, places: concurrency.HeldPlaces) -> None:
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


class Admissions:
    """Lets requests in, and takes back or settles what they hold."""

    def __init__(
        self,
        *,
        directory: Directory,
        day_counters: days.DayCounters,
        rate_windows: Windows,
        places: ConcurrencyLimits,
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
        self._awaited: set[tuple[str, windows.WindowLimit]] = set()
        """The slug and the limit of each request that waits for a refusal's end."""
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

    async def find(self, key: Key, body: Body, api: ApiRoute, slug: str | None = None) -> tuple[Read, Route] | Reply:
        """Return what a body asks and where it goes, or the answer that refuses it. `slug`: where the path names it."""
        read = await self._large.request(api, body)
        if isinstance(read, chat.Invalid):
            return replies.bad_request(read.message, read.param)
        if slug is None:
            slug = read.request.slug
        route = self._directory.route(key, slug, api)
        if not isinstance(route, Route):
            return replies.model_not_found(slug) if route is None else replies.unserved(slug)
        if read.upstream_object is not None and not route.upstream_objects:
            return replies.names_upstream_object(read.upstream_object)
        if isinstance(body, MemoryFile):
            read = await self._large.for_upstream(api, body, read, route)
        return read, route

    def request_id(self) -> str:
        """Return the id of a request that is not admitted: it names this moment."""
        return self._mint_request(self._clock())

    async def admit(
        self, key: Key, body: Body, api: ApiRoute = chat_completions.ROUTE, envelope: Envelope | None = None
    ) -> Call | Reply:
        """Let a request in, holding a place in every limit and a slot; or give the answer that refuses it."""
        found = await self.find(key, body, api, None if envelope is None else envelope.slug)
        if isinstance(found, Reply):
            return found
        read, route = found
        asked, now = read.request, self._clock()
        expected = estimate.NOTHING if api.is_opaque else self._expected(read, route, api)
        tokens, output = expected.reserved, expected.reserved_output
        counted = (route.slug, route.charged_groups, route.day_limits, tokens, output)
        patience_ms = _PATIENCE_MS
        while True:
            day = self._days.reserve(now.date(), *counted, route.unit_cost(now))
            if isinstance(day, days.DayRefusal):
                return replies.used_up(route.slug, day, now, route.group_id)
            places: concurrency.HeldPlaces = []
            rate = None if route.concurrent else self._windows.reserve_at_once(route.rates, tokens, output)
            if rate is None:
                rate, places = await self._reserve(route, expected, day)
            if isinstance(rate, windows.Reservation):
                break
            self._days.release(day)
            patience_ms -= rate.retry_after_ms + _ASKING_MS
            if patience_ms < 0 or not await self._waited_for(route.slug, rate):
                return replies.rate_limited(route.slug, rate, route.group_id)
            now = self._clock()
        request_id = self._mint_request(now)
        event = self._event(key, route, request_id, now, asked)
        try:
            likely = (expected.tokens, _SOURCE[api.is_opaque], day.cost_of(expected.tokens))
            slot = self._in_flight.open_slot(usage_event.in_flight(event, *likely))
        except SpoolUnavailableError as error:
            self._give_back(day, rate, places)
            return replies.full("requests in flight") if self._in_flight.is_full else replies.unavailable(str(error))
        holds = (day, rate, places, slot, self._large.costs, envelope)
        return Call(api, asked, route, request_id, event, expected.tokens, *holds, prompt_tokens=read.prompt_tokens)

    async def _waited_for(self, slug: str, refusal: windows.Refusal) -> bool:
        """Wait until a refusal ends; return False where another request waits for the same limit.

        A client that keeps exactly to a limit's pace arrives now a little later, now a little earlier than its pace.
        """
        limit = (slug, refusal.limit)
        if limit in self._awaited:
            return False
        self._awaited.add(limit)
        try:
            await asyncio.sleep(refusal.retry_after_s)
        finally:
            self._awaited.discard(limit)
        return True

    def _event(self, key: Key, route: Route, request_id: str, now: datetime, asked: chat.ChatRequest) -> bytes:
        return usage_event.begun(
            idempotency_key=self._mint(now),
            request_id=request_id,
            admitted_at=now,
            route=route.event,
            api_key_prefix=key.prefix,
            request_metadata=asked.metadata,
            stream=asked.stream,
        )

    def _expected(self, read: Read, route: Route, api: ApiRoute) -> estimate.Expected:
        likely = self._sizes.likely(route.group_id, route.slug) if api.has_output else 0
        asked = read.request
        most = route.max_output_tokens or self._most_output
        return estimate.expected(read.prompt_bound, asked.choices, asked.max_tokens, likely, most)

    async def _reserve(
        self, route: Route, expected: estimate.Expected, day: reservations.DayReservation
    ) -> tuple[windows.Reservation | windows.Refusal, concurrency.HeldPlaces]:
        """Take a place among those in flight, then in the rate windows, or in neither; where this fails, `day` goes."""
        places: concurrency.HeldPlaces = []
        rate: windows.Reservation | windows.Refusal | None = None
        try:
            if route.concurrent:
                taken = await self.places.reserve(route.rates.root_group, route.slug, route.concurrent)
                if isinstance(taken, windows.Refusal):
                    rate = taken
                    return rate, places
                places = taken
            rate = await self._windows.reserve(route.rates, expected.reserved, expected.reserved_output)
        finally:
            if rate is None:  # it failed, or was cancelled
                self._days.release(day)
            if not isinstance(rate, windows.Reservation):
                self.places.release(places)
        return rate, places

    def settle(self, call: Call, sequence: int, count: answers.Count) -> None:
        """Replace what a call holds by what it used; its event is durable as `sequence`."""
        output = count.tokens.output_tokens
        used = count.tokens.input_tokens + output
        self._in_flight.close_slot(call.slot)
        self._days.settle(call.day, sequence, used, output, call.day.cost_of(count.tokens))
        self._windows.settle(call.rate, used, output)
        call.used = (used, output)
        self.places.release(call.places)
        if count.source is UsageSource.PROVIDER and call.api.has_output and call.asked.max_tokens is None:
            route = call.route  # where its client gave a bound, the answer says nothing of what one has without
            self._sizes.learn(route.group_id, route.slug, count.tokens.output_tokens, count.choices)

    def release(self, call: Call) -> None:
        """Give back what a call holds: there will be no event."""
        self._in_flight.close_slot(call.slot)
        call.used = (0, 0)
        self._give_back(call.day, call.rate, call.places)

    def _give_back(
        self, day: reservations.DayReservation, rate: windows.Reservation, places: concurrency.HeldPlaces
    ) -> None:
        self._days.release(day)
        self._windows.release(rate)
        self.places.release(places)

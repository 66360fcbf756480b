"""The story of one request: admit, forward, observe, emit (contract 3).

Never lets the client have the last byte before the usage event is durable. However a request ends, its reservations
are settled or released once, its slot is closed when its event is durable or none is due, the connection is given
back. A stream whose event cannot be kept is billed from its slot at a next start.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from proxy.admission import Admissions, Call
from proxy.core import endings, replies, usage_event
from proxy.core.calls import BrokenOffError, Failure, Model, SpoolUnavailableError, UpstreamRequest
from proxy.core.endings import Ending
from proxy.core.replies import Headers, Reply
from proxy.deadlines import Deadline, Drains
from proxy.dialects import answers, chat
from schemas.usage import Outcome, UsageDraft


class Client(Protocol):
    """The developer's side of one request."""

    authorization: bytes | None

    async def body(self) -> bytes | Reply:
        """Return the whole request body, or the answer that refuses it."""

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer that is sent piece by piece."""

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it at once."""

    async def reply(self, reply: Reply) -> None:
        """Return a whole answer."""

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client goes away; None: it no longer matters."""


class Answer(Protocol):
    """An upstream's answer. Reading raises BrokenOffError where it ends before it is whole."""

    status: int
    headers: Headers
    """Those that may pass."""
    is_event_stream: bool
    """Whether the body is server-sent events."""

    async def read_chunk(self) -> bytes | None:
        """Return what has arrived as soon as it has; None at the end."""

    def expect_end(self) -> None:
        """Say that only its end is missing, which `close` may let come in the background."""

    async def close(self) -> None:
        """Give the connection back; an answer that was not read to its end is ended at once."""


class Upstream(Protocol):
    """Calls the models' servers."""

    async def open(self, request: UpstreamRequest) -> Answer | Failure:
        """Return the answer when its head is there."""


class UsageSink(Protocol):
    """Keeps usage events."""

    @property
    def blocked(self) -> str | None:
        """Say why no event could be kept now, so that no upstream is called for nothing; None: all is well."""

    def put(self, draft: UsageDraft) -> Awaitable[int]:
        """Return the event's sequence once it is durable. Raise SpoolUnavailableError."""


class Gateway:
    """Serves requests; one for a process. Times in seconds."""

    def __init__(
        self,
        *,
        admissions: Admissions,
        upstream: Upstream,
        sink: UsageSink,
        drains: Drains,
        first_byte_s: float,
        idle_s: float,
        mint: Callable[[], str],
    ) -> None:
        self._admissions = admissions
        self._upstream = upstream
        self._sink = sink
        self._drains = drains
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._mint = mint

    async def complete(self, client: Client) -> None:
        """Serve one chat completion."""
        request_id = self._mint()
        call = await self._admit(client, request_id)
        if isinstance(call, Reply):
            call.headers.append((b"x-request-id", request_id.encode()))
            await self._give(client.reply(call))
            return
        try:
            ending = await self._forward(client, call)
        except asyncio.CancelledError:  # the gateway stops, and waits no longer
            with suppress(SpoolUnavailableError):
                await self._emit(call, _cut_short(call, Outcome.GATEWAY_INTERRUPTED, replies.upstream_too_slow()))
            raise
        except Exception:  # a fault of ours
            await self._emit(call, _cut_short(call, Outcome.UPSTREAM_ERROR, replies.upstream_broke_off()))
            raise
        await self._end(client, call, ending)

    def models(self, authorization: bytes | None) -> list[Model] | Reply:
        """Return what the key of an Authorization header may call."""
        return self._admissions.models(authorization)

    async def _admit(self, client: Client, request_id: str) -> Call | Reply:
        key = self._admissions.expect(client.authorization)
        if isinstance(key, Reply):
            return key
        if self._sink.blocked is not None:
            return replies.unavailable("usage cannot be recorded")
        body = await client.body()
        return body if isinstance(body, Reply) else await self._admissions.admit(key, request_id, body)

    async def _forward(self, client: Client, call: Call) -> Ending:
        """Call the upstream and pass its answer on, all but what must wait for the event."""
        route = call.admission.route
        body = chat.upstream_body(call.asked, route.target_model, stored_metadata_only=route.stored_metadata_only)
        sent = UpstreamRequest(route.url, body, call.admission.request_id, route.credential, route.by_operator)
        bound = Deadline(self._drains)
        answer: Answer | None = None
        try:
            async with bound:
                client.on_gone(bound.client_gone)
                bound.expect(self._first_byte_s)
                opened = await self._upstream.open(sent)
                if isinstance(opened, Failure):
                    reply = replies.upstream_failed(opened)
                    return _cut_short(call, bound, reply) if opened is Failure.TOO_SLOW else endings.refused(reply)
                answer = opened
                ending = await self._observe(client, call, answer, bound)
                return replace(ending, outcome=Outcome.CLIENT_DISCONNECTED) if bound.gone and ending.outcome else ending
        except TimeoutError:
            if answer is not None and call.stream is not None and bound.for_client and not bound.gone:
                return await self._read_on(client, call, call.stream, answer)
            return _cut_short(call, bound, replies.upstream_too_slow())
        except BrokenOffError:
            return _cut_short(call, bound, replies.upstream_broke_off())
        finally:
            client.on_gone(None)
            if answer is not None:
                await answer.close()

    async def _observe(self, client: Client, call: Call, answer: Answer, bound: Deadline) -> Ending:
        call.first_byte_s = asyncio.get_running_loop().time()
        call.answered = 200 <= answer.status < 300
        if not call.answered:
            return endings.refused(replies.passed_on(answer.status, answer.headers, await self._read(answer, bound)))
        slug, expected = call.admission.route.slug, call.admission.expected
        if not answer.is_event_stream:
            return endings.plain(answer.status, answer.headers, await self._read(answer, bound), slug, expected)
        stream = call.stream = answers.StreamReader(slug, keep_usage=call.asked.include_usage)
        bound.expect(self._idle_s, for_client=True)
        await client.start(answer.status, answer.headers + call.headers)
        await self._follow(client, stream, answer, bound)
        return endings.streamed(stream, expected)

    async def _read(self, answer: Answer, bound: Deadline) -> bytes:
        pieces: list[bytes] = []
        size = 0
        bound.expect(self._idle_s)
        while (chunk := await answer.read_chunk()) is not None:
            bound.expect(self._idle_s)
            pieces.append(chunk)
            if (size := size + len(chunk)) > endings.MAX_PLAIN_BYTES:
                raise BrokenOffError("the answer is too large")
        return b"".join(pieces)

    async def _follow(self, client: Client, stream: answers.StreamReader, answer: Answer, bound: Deadline) -> None:
        bound.expect(self._idle_s)
        while not stream.done and (chunk := await answer.read_chunk()) is not None:
            ready = stream.feed(chunk)
            if ready and not bound.gone:
                bound.expect(self._idle_s, for_client=True)
                await client.send(ready)
            bound.expect(self._idle_s)
        answer.expect_end()
        stream.finish()

    async def _read_on(self, client: Client, call: Call, stream: answers.StreamReader, answer: Answer) -> Ending:
        """Follow a stream whose client takes nothing any more, as if it had gone."""
        with suppress(TimeoutError, BrokenOffError):  # what has come until then is billed
            async with Deadline(self._drains) as bound:
                bound.client_gone()
                await self._follow(client, stream, answer, bound)
        ending = endings.streamed(stream, call.admission.expected)
        return replace(ending, outcome=Outcome.CLIENT_DISCONNECTED, client_lost=True)

    async def _end(self, client: Client, call: Call, ending: Ending) -> None:
        """Emit the event, or give everything back; then let the client have the rest."""
        reply, last = ending.reply, ending.last
        try:
            await self._emit(call, ending)
        except SpoolUnavailableError:  # never an unbilled answer
            unrecorded = replies.unavailable("usage cannot be recorded")
            last = replies.as_event(unrecorded)
            if reply is not None:
                reply = unrecorded
                await self._admissions.release(call)
        if reply is not None:
            reply.headers.extend(call.headers)
            await self._give(client.reply(reply))
        elif not ending.client_lost:
            await self._give(client.send(last, last=True))

    async def _give(self, rest: Awaitable[None]) -> None:
        with suppress(TimeoutError):  # a client that does not take it in time goes without
            async with asyncio.timeout(self._idle_s):
                await rest

    async def _emit(self, call: Call, ending: Ending) -> None:
        if ending.outcome is None or ending.count is None:
            await self._admissions.release(call)
            return
        result = usage_event.Result(ending.count.tokens, ending.count.source, ending.outcome, *call.times_ms())
        written = asyncio.ensure_future(self._sink.put(usage_event.draft(call.admission, result)))
        try:
            sequence = await asyncio.shield(written)
        except asyncio.CancelledError:  # it becomes durable all the same, so its slot must not outlive it
            await self._admissions.settle(call, await written, ending.count)
            raise
        await self._admissions.settle(call, sequence, ending.count)


def _cut_short(call: Call, ended_by: Deadline | Outcome, reply: Reply) -> Ending:
    if isinstance(ended_by, Deadline):
        ended_by = Outcome.CLIENT_DISCONNECTED if ended_by.is_clients_fault else Outcome.UPSTREAM_ERROR
    expected = call.admission.expected
    return endings.cut_short(ended_by, reply, stream=call.stream, answered=call.answered, expected=expected)

"""The story of one request: admit, forward, observe, emit (spec 3).

Never speaks HTTP, SQL or JSON itself, and never lets the client have the last byte before the usage event is durable.

What must hold, whichever way a request ends: its reservations are settled or released once, its slot is closed when
its event is durable or when there is to be none, and the upstream's connection is given back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.admission import Admissions, Call
from proxy.core import events, replies, request, usage
from proxy.core.exchange import BrokenOffError, Failure, Model, SpoolUnavailableError, UpstreamRequest
from proxy.core.replies import Headers, Reply
from proxy.patience import Drains, Patience
from schemas.usage import Outcome, Tokens, UsageDraft


class Client(Protocol):
    """The developer's side of one request."""

    authorization: bytes | None

    async def body(self) -> bytes | Reply:
        """Give the whole request body, or the answer that refuses it."""
        ...

    async def start(self, status: int, headers: Headers) -> None:
        """Begin an answer that is sent piece by piece."""
        ...

    async def send(self, chunk: bytes, *, last: bool = False) -> None:
        """Send a piece of it at once."""
        ...

    async def reply(self, reply: Reply) -> None:
        """Give a whole answer."""
        ...

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client goes away; None: it no longer matters."""
        ...


class Answer(Protocol):
    """An upstream's answer. Reading raises BrokenOffError where it ends before it is whole."""

    status: int

    @property
    def headers(self) -> Headers:
        """The headers that may pass."""
        ...

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is server-sent events."""
        ...

    async def read_chunk(self) -> bytes | None:
        """Give what has arrived as soon as it has; None at the end."""
        ...

    async def read(self) -> bytes:
        """Give the whole body."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class Upstream(Protocol):
    """Calls the models' servers."""

    async def open(self, request: UpstreamRequest) -> Answer | Failure:
        """Give the answer when its head is there."""
        ...


class UsageSink(Protocol):
    """Keeps usage events."""

    @property
    def blocked(self) -> str | None:
        """Say why no event could be kept now, so that no upstream is called for nothing; None: all is well."""
        ...

    async def put(self, draft: UsageDraft) -> int:
        """Give the event's sequence once it is durable. Raises SpoolUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ends: what to bill, and what the client still gets."""

    outcome: Outcome | None
    """None: there is no event."""
    reply: Reply | None = None
    """The whole answer, where none was begun."""
    last: bytes = b""
    """Else what ends the stream."""
    tokens: Tokens | None = None
    content_bytes: int = 0


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
            await client.reply(call)
            return
        try:
            ending = await self._forward(client, call)
        except asyncio.CancelledError:  # the gateway stops, and waits no longer
            await self._emit(call, self._broken(call, Outcome.GATEWAY_INTERRUPTED))
            raise
        await self._end(client, call, ending)

    def models(self, authorization: bytes | None) -> list[Model] | Reply:
        """Give what the key of an Authorization header may call."""
        return self._admissions.models(authorization)

    async def _admit(self, client: Client, request_id: str) -> Call | Reply:
        key = self._admissions.authenticate(client.authorization)
        if isinstance(key, Reply):
            return key
        if self._sink.blocked is not None:
            return replies.unavailable("usage cannot be recorded")
        body = await client.body()
        return body if isinstance(body, Reply) else await self._admissions.admit(key, request_id, body)

    async def _forward(self, client: Client, call: Call) -> Ending:
        """Call the upstream and pass its answer on, all but what must wait for the event."""
        route = call.admission.route
        body = request.upstream_body(call.asked, route.target_model)
        sent = UpstreamRequest(route.url, body, call.admission.request_id, route.credential)
        bound = Patience(self._drains)
        answer: Answer | Failure | None = None
        try:
            async with bound:
                client.on_gone(bound.client_gone)
                bound.expect(self._first_byte_s)
                answer = await self._upstream.open(sent)
                if isinstance(answer, Failure):
                    return Ending(None, replies.upstream_failed(answer))
                ending = await self._observe(client, call, answer, bound)
                return replace(ending, outcome=Outcome.CLIENT_DISCONNECTED) if bound.gone and ending.outcome else ending
        except TimeoutError:
            return self._broken(call, Outcome.CLIENT_DISCONNECTED if bound.gone else Outcome.UPSTREAM_ERROR)
        except BrokenOffError:
            return self._broken(call, Outcome.UPSTREAM_ERROR)
        finally:
            client.on_gone(None)
            if answer is not None and not isinstance(answer, Failure):
                await answer.close()

    async def _observe(self, client: Client, call: Call, answer: Answer, bound: Patience) -> Ending:
        call.first_byte_s = asyncio.get_running_loop().time()
        bound.expect(self._idle_s)
        if not 200 <= answer.status < 300:
            return Ending(None, replies.passed_on(answer.status, answer.headers, await answer.read()))
        call.answered = True
        if not answer.is_event_stream:
            body = await answer.read()
            content, tokens = usage.plain(body, call.admission.route.slug)
            reply = Reply(answer.status, answer.headers, content)
            return Ending(Outcome.COMPLETE, reply, b"", tokens, 0 if tokens else usage.content_bytes(body))
        await client.start(answer.status, answer.headers + call.headers)
        stream = call.stream = usage.Stream(call.admission.route.slug, keep_usage=call.asked.include_usage)
        while not stream.done and (chunk := await answer.read_chunk()) is not None:
            bound.expect(self._idle_s)
            ready = stream.feed(chunk)
            if ready and not bound.gone:
                await client.send(ready)
        stream.finish()
        return Ending(Outcome.COMPLETE, None, stream.held, stream.tokens, stream.content_bytes)

    def _broken(self, call: Call, outcome: Outcome) -> Ending:
        """End a call whose upstream did not: billed if it was answering, or still working when its client left."""
        stream = call.stream
        if stream is not None:
            return Ending(outcome, None, replies.stream_error(), stream.tokens, stream.content_bytes)
        if call.answered:
            return Ending(outcome, replies.upstream_broke_off())
        return Ending(None if outcome is Outcome.UPSTREAM_ERROR else outcome, replies.upstream_too_slow())

    async def _end(self, client: Client, call: Call, ending: Ending) -> None:
        """Emit the event, or give everything back; then let the client have the rest."""
        last = ending.last
        reply = ending.reply
        try:
            await self._emit(call, ending)
        except SpoolUnavailableError:  # never an unbilled answer
            last, reply = replies.stream_error(), reply and replies.unavailable("usage cannot be recorded")
        if reply is None:
            await client.send(last, last=True)
        else:
            reply.headers.extend(call.headers)
            await client.reply(reply)

    async def _emit(self, call: Call, ending: Ending) -> None:
        if ending.outcome is None:
            await self._admissions.release(call)
            return
        count = usage.settle(ending.tokens, call.admission.expected.input_tokens, ending.content_bytes)
        now_s = asyncio.get_running_loop().time()
        first_byte_ms = None if call.first_byte_s is None else round((call.first_byte_s - call.started_s) * 1000)
        latency_ms = round((now_s - call.started_s) * 1000)
        result = events.Result(count.tokens, count.source, ending.outcome, latency_ms, first_byte_ms)
        sequence = await self._sink.put(events.draft(call.admission, result))
        await self._admissions.settle(call, sequence, count)

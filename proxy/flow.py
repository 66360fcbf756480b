"""The story of one request: admit, forward, observe, emit (contract 3).

Never lets the client have the last byte before the usage event is durable. However a request ends, its reservations
are settled or released once, its slot is closed when its event is durable or none is due, the connection is given
back. A stream whose event cannot be kept is billed from its slot at a next start.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from proxy import reading
from proxy.admission import Admissions, Call
from proxy.core import endings, replies
from proxy.core.calls import (
    BrokenOffError,
    Envelope,
    Failure,
    Key,
    Model,
    Route,
    SpoolUnavailableError,
    UpstreamRequest,
)
from proxy.core.endings import Billed, Ending, Refused
from proxy.core.replies import Reply
from proxy.deadlines import Deadline, Drains
from proxy.dialects import forms
from proxy.dialects.routes import chat_completions
from proxy.dialects.routes.api import ApiRoute, Stream
from proxy.ports import Client, Upstream, UsageSink
from proxy.reading import Answer
from runtime.deadlines import Deadlines
from schemas.usage import Outcome


class Gateway:
    """Serves requests; one for a process. Times in seconds."""

    def __init__(
        self,
        *,
        admissions: Admissions,
        upstream: Upstream,
        sink: UsageSink,
        drains: Drains,
        deadlines: Deadlines,
        first_byte_s: float,
        idle_s: float,
        mint: Callable[[], str],
    ) -> None:
        self._admissions = admissions
        self._upstream = upstream
        self._sink = sink
        self._drains = drains
        self._deadlines = deadlines
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._mint = mint

    async def complete(self, client: Client, api: ApiRoute = chat_completions.ROUTE) -> None:
        """Serve one request of a route."""
        request_id = self._mint()
        call = await self._admit(client, request_id, api)
        if isinstance(call, Reply):
            call.headers.append((b"x-request-id", request_id.encode()))
            await client.reply(call)
            return
        call.started_s = self._deadlines.loop.time()
        try:
            ending = await self._forward(client, call)
        except asyncio.CancelledError:  # the gateway stops, and waits no longer
            with suppress(SpoolUnavailableError):
                await self._emit(call, call.cut_short(Outcome.GATEWAY_INTERRUPTED, replies.upstream_too_slow()))
            raise
        except Exception:  # a fault of ours
            await self._emit(call, call.cut_short(Outcome.UPSTREAM_ERROR, replies.upstream_broke_off()))
            raise
        await self._end(client, call, ending)

    def models(self, authorization: bytes | None) -> list[Model] | Reply:
        """Return what the key of an Authorization header may call."""
        return self._admissions.models(authorization)

    async def pass_on(self, client: Client, api: ApiRoute) -> None:
        """Serve what is neither counted nor limited, for a key that may call the slug."""
        request_id = self._mint()
        reply = await self._passed_on(client, request_id, api)
        reply.headers.append((b"x-request-id", request_id.encode()))
        await client.reply(reply)

    async def _passed_on(self, client: Client, request_id: str, api: ApiRoute) -> Reply:
        body = await self._body(client)
        found = body if isinstance(body, Reply) else await self._admissions.find(body[0], body[1], api)
        if isinstance(found, Reply):
            return found
        request, route = found
        sent = _request(client, route, api.upstream_body(request, route.target_model), request_id)
        answer: Answer | None = None
        try:
            with Deadline(self._drains, self._deadlines) as bound:
                bound.expect(self._first_byte_s)
                opened = await self._upstream.open(sent)
                if isinstance(opened, Failure):
                    return replies.upstream_failed(opened)
                answer = opened
                told = await reading.whole(answer, bound, self._idle_s)
                passed = Reply if 200 <= answer.status < 300 else replies.passed_on
                return passed(answer.status, answer.headers, told)
        except TimeoutError:
            return replies.upstream_too_slow()
        except BrokenOffError:
            return replies.upstream_broke_off()
        finally:
            if answer is not None:
                await answer.close()

    async def _admit(self, client: Client, request_id: str, api: ApiRoute) -> Call | Reply:
        found = await self._body(client, self._sink)
        if isinstance(found, Reply):
            return found
        slug = client.envelope.slug if isinstance(client.envelope, Envelope) else None
        return await self._admissions.admit(found[0], request_id, found[1], api, slug)

    async def _body(self, client: Client, sink: UsageSink | None = None) -> tuple[Key, bytes] | Reply:
        """Return the key of a call and its body, or the answer that refuses it. `sink`: where its event would go."""
        key = self._admissions.expect(client.authorization)
        if isinstance(key, Reply):
            return key
        if sink is not None and sink.blocked is not None:
            return replies.unavailable("usage cannot be recorded")
        if isinstance(client.envelope, Reply):
            return client.envelope
        body = await client.body()
        return body if isinstance(body, Reply) else (key, body)

    async def _forward(self, client: Client, call: Call) -> Ending:
        """Call the upstream and pass its answer on, all but what must wait for the event."""
        route = call.route
        body = call.api.upstream_body(call.asked, route.target_model, stored_metadata_only=route.stored_metadata_only)
        sent = _request(client, route, body, call.request_id)
        bound = Deadline(self._drains, self._deadlines)
        answer: Answer | None = None
        try:
            with bound:
                client.on_gone(bound.client_gone)
                bound.expect(self._first_byte_s)
                opened = await self._upstream.open(sent)
                if isinstance(opened, Failure):
                    reply = replies.upstream_failed(opened)
                    return call.cut_short(bound.outcome, reply) if opened is Failure.TOO_SLOW else Refused(reply)
                answer = opened
                ending = await self._observe(client, call, answer, bound)
                if bound.gone and isinstance(ending, Billed):
                    ending.outcome = Outcome.CLIENT_DISCONNECTED
                return ending
        except TimeoutError:
            if answer is not None and call.stream is not None and bound.for_client and not bound.gone:
                return await self._read_on(client, call, call.stream, answer)
            return call.cut_short(bound.outcome, replies.upstream_too_slow())
        except BrokenOffError:
            return call.cut_short(bound.outcome, replies.upstream_broke_off())
        finally:
            client.on_gone(None)
            if answer is not None:
                await answer.close()

    async def _observe(self, client: Client, call: Call, answer: Answer, bound: Deadline) -> Ending:
        call.first_byte_s = self._deadlines.loop.time()
        call.answered = 200 <= answer.status < 300
        if not call.answered:
            body = await reading.whole(answer, bound, self._idle_s)
            return Refused(replies.passed_on(answer.status, answer.headers, body))
        is_opaque = call.api.is_opaque
        begun, is_stream = (b"", True) if is_opaque else await reading.beginning(answer, bound, self._idle_s)
        if not is_stream:
            body = await reading.whole(answer, bound, self._idle_s, begun)
            told = call.api.plain(body, call.route.slug)
            return endings.plain(answer.status, answer.headers, told, call.likely)
        stream = call.stream = call.api.stream(call.asked, call.route.slug)
        ready = stream.feed(begun)
        bound.expect(self._idle_s, for_client=True)
        headers = answer.headers if is_opaque else forms.stream_headers(answer.headers)
        await client.start(answer.status, headers + call.headers)
        if ready and not bound.gone:
            await client.send(ready)
        await self._follow(client, stream, answer, bound)
        return endings.streamed(stream, call.likely)

    async def _follow(self, client: Client, stream: Stream, answer: Answer, bound: Deadline) -> None:
        bound.expect(self._idle_s)
        while not stream.done and (chunk := await answer.read_chunk()) is not None:
            ready = stream.feed(chunk)
            if ready and not bound.gone:
                bound.expect(self._idle_s, for_client=True)
                await client.send(ready)
            bound.expect(self._idle_s)
        answer.expect_end()
        stream.finish()

    async def _read_on(self, client: Client, call: Call, stream: Stream, answer: Answer) -> Ending:
        """Follow a stream whose client takes nothing any more, as if it had gone."""
        # what has come until then is billed
        with suppress(TimeoutError, BrokenOffError), Deadline(self._drains, self._deadlines) as bound:
            bound.client_gone()
            await self._follow(client, stream, answer, bound)
        ending = endings.streamed(stream, call.likely)
        ending.outcome, ending.client_lost = Outcome.CLIENT_DISCONNECTED, True
        return ending

    async def _end(self, client: Client, call: Call, ending: Ending) -> None:
        """Emit the event, or give everything back; then let the client have the rest."""
        try:
            await self._emit(call, ending)
        except SpoolUnavailableError:  # never an unbilled answer
            unrecorded = replies.unavailable("usage cannot be recorded")
            if ending.reply is None and call.stream is not None:
                ending.last = endings.error_event(call.stream, unrecorded)
            else:
                ending = Refused(unrecorded)
                self._admissions.release(call)
        if ending.reply is not None:
            ending.reply.headers.extend(call.headers)
            await client.reply(ending.reply)
        elif ending.last is None:
            client.abort()
        elif not ending.client_lost:
            await client.send(ending.last, last=True)

    async def _emit(self, call: Call, ending: Ending) -> None:
        """Return when the event is durable, if one is due. It becomes so, and is settled, also if that is cancelled."""
        if isinstance(ending, Refused):
            self._admissions.release(call)
            return
        count, loop = call.counted(ending.count), self._deadlines.loop
        durable: asyncio.Future[int | SpoolUnavailableError] = loop.create_future()

        def told(sequence: int | SpoolUnavailableError) -> None:
            if isinstance(sequence, int):
                self._admissions.settle(call, sequence, count)
            if not durable.done():  # else the wait was cancelled
                durable.set_result(sequence)

        self._sink.append(call.ended(ending.outcome, count, loop.time()), ending.outcome, told)
        if isinstance(failure := await durable, SpoolUnavailableError):
            raise failure


def _request(client: Client, route: Route, body: bytes, request_id: str) -> UpstreamRequest:
    envelope = client.envelope if isinstance(client.envelope, Envelope) else None
    return UpstreamRequest(
        route.url, body, request_id, route.credential, route.by_operator, route.dialect, envelope=envelope
    )

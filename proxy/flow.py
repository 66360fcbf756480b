"""The story of one request: admit, forward, observe, emit (contract 3).

Never lets the client have the last byte before the usage event is durable. However a request ends, its reservations
are settled or released once, its slot is closed when its event is durable or none is due, the connection is given
back. A stream whose event cannot be kept is billed from its slot at a next start.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial

from proxy import reading, shares
from proxy.admission import Admissions
from proxy.call import Call
from proxy.core import endings, replies
from proxy.core.calls import BrokenOffError, Failure, Key, SpoolUnavailableError
from proxy.core.endings import Billed, Ending, Refused
from proxy.core.replies import Reply
from proxy.deadlines import Deadline, Drains
from proxy.dialects import forms
from proxy.dialects.routes.api import ApiRoute, Stream
from proxy.large import Large
from proxy.ports import Client, Story, Upstream, UsageSink
from proxy.reading import Answer, Hold
from proxy.refusals import Refusals
from proxy.request_log import RequestLog
from proxy.shares import AnswerRoom, AnswersFullError, WorkspaceShares
from runtime.deadlines import Deadlines
from runtime.memory_files import content
from schemas.usage import Outcome

KEPT_BODY_BYTES = 64 * 1024
"""A body up to this is kept for estimates until its request ends; a larger one is estimated when it has been sent."""
log = logging.getLogger(__name__)


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
        request_s: float,
        shares: WorkspaceShares,
        large: Large,
        requests: RequestLog,
        refusals: Refusals,
    ) -> None:
        self._admissions = admissions
        self._upstream = upstream
        self._sink = sink
        self._drains, self._deadlines = drains, deadlines
        self._first_byte_s, self._idle_s, self._request_s = first_byte_s, idle_s, request_s
        self._shares, self._large, self._requests = shares, large, requests
        self._refusals = refusals

    async def complete(self, client: Client, api: ApiRoute, story: Story | None = None) -> None:
        """Serve one request of a route; `story`: of one that is not counted."""
        begun_s = self._deadlines.loop.time()
        key = self._admissions.expect(client.authorization)
        if isinstance(key, Reply):
            await self._refusals.answer(client, key)
            return
        excess = self._shares.enter(key)
        if excess is not None:
            await self._refusals.answer(client, excess, key)
            return
        try:
            refusal = await (story or self._serve)(client, key, api)
            if refusal is not None:
                await self._refusals.answer(client, refusal, key, begun_s)
        except Exception:  # a fault of ours
            client.request_id = client.request_id or self._admissions.request_id()
            log.exception("request %s failed", client.request_id)
            if client.is_answered:
                raise  # the client must not take a part for the whole
            await self._refusals.answer(client, replies.fault(), key, begun_s)
        finally:
            self._shares.leave(key)

    async def _serve(self, client: Client, key: Key, api: ApiRoute) -> Reply | None:
        call = await self._admit(client, key, api)
        if isinstance(call, Reply):
            return call
        client.request_id = call.request_id
        call.started_s = self._deadlines.loop.time()
        room = self._shares.room(key)
        try:
            ending = await self._forward(client, call, room)
        except asyncio.CancelledError:  # the gateway stops, and waits no longer
            ending = call.cut_short(Outcome.GATEWAY_INTERRUPTED, replies.upstream_too_slow())
            with suppress(SpoolUnavailableError):
                await self._emit(call, ending)
            self._requests.ended(call, ending, key)
            raise
        except Exception:  # a fault of ours, which `complete` answers and logs
            await self._emit(call, call.cut_short(Outcome.UPSTREAM_ERROR, replies.upstream_broke_off()))
            raise
        else:
            await self._end(client, call, ending, key)
            return None
        finally:
            room.close()

    async def _admit(self, client: Client, key: Key, api: ApiRoute) -> Call | Reply:
        if self._sink.blocked is not None:
            return replies.unavailable("usage cannot be recorded")
        envelope = client.envelope
        if isinstance(envelope, Reply):
            return envelope
        body = await client.body(key.workspace_id)
        if isinstance(body, Reply):
            return body
        begun_s, excess = self._deadlines.loop.time(), self._shares.read(key, len(body))
        call = excess or await self._admissions.admit(key, body, api, envelope)
        if isinstance(call, Call):
            call.begun_s = begun_s
            if client.trace:
                call.event += client.trace
        return call

    async def _forward(self, client: Client, call: Call, room: AnswerRoom) -> Ending:
        """Call the upstream and pass its answer on, all but what must wait for the event."""
        sent = call.upstream_request()
        sent.hold = room.hold
        if len(sent.body) > KEPT_BODY_BYTES:
            sent.on_sent = partial(call.give_up_body, sent, client.release_body)
        bound = self._bound(call)
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
                ending = await self._observe(client, call, answer, bound, room.hold)
                if bound.gone and isinstance(ending, Billed):
                    ending.outcome = Outcome.CLIENT_DISCONNECTED
                return ending
        except TimeoutError:
            if answer is not None and call.stream is not None and bound.for_client and not bound.gone:
                return await self._read_on(client, call, call.stream, answer, room.hold)
            return call.cut_short(bound.outcome, replies.upstream_too_slow())
        except AnswersFullError as error:
            return call.cut_short(bound.outcome, shares.refused(error.excess, "answers"))
        except BrokenOffError:
            return call.cut_short(bound.outcome, replies.upstream_broke_off())
        finally:
            client.on_gone(None)
            if answer is not None:
                await answer.close()

    async def _observe(self, client: Client, call: Call, answer: Answer, bound: Deadline, hold: Hold) -> Ending:
        call.first_byte_s = self._deadlines.loop.time()
        call.answered = 200 <= answer.status < 300
        if not call.answered:
            body = content(await reading.whole(answer, bound, self._idle_s, hold))
            return Refused(replies.passed_on(answer.status, answer.headers, body))
        is_opaque = call.api.is_opaque
        begun, is_stream = (b"", True) if is_opaque else await reading.beginning(answer, bound, self._idle_s, hold)
        if not is_stream:
            whole = await reading.whole(answer, bound, self._idle_s, hold, begun)
            told = await self._large.answer(call.api, whole, call.route.slug)
            return endings.plain(answer.status, answer.headers, told, call.likely, call.asked.echoed_bytes)
        stream = call.stream = call.api.stream(call.asked, call.route.slug)
        ready = stream.feed(begun)
        bound.expect(self._idle_s, for_client=True)
        headers = answer.headers if is_opaque else forms.stream_headers(answer.headers)
        await client.start(answer.status, headers, call.header_lines())
        if ready and not bound.gone:
            await client.send(ready)
        await self._follow(client, stream, answer, bound, hold)
        return endings.streamed(stream, call.likely)

    async def _follow(self, client: Client, stream: Stream, answer: Answer, bound: Deadline, hold: Hold) -> None:
        bound.expect(self._idle_s)
        while not stream.done and (chunk := await answer.read_chunk()) is not None:
            ready = stream.feed(chunk)
            hold(stream.held_bytes)
            if ready and not bound.gone:
                bound.expect(self._idle_s, for_client=True)
                await client.send(ready)
            bound.expect(self._idle_s)
        answer.expect_end()
        stream.finish()

    async def _read_on(self, client: Client, call: Call, stream: Stream, answer: Answer, hold: Hold) -> Ending:
        """Follow a stream whose client takes nothing any more, as if it had gone."""
        # what has come until then is billed
        with suppress(TimeoutError, BrokenOffError), self._bound(call) as bound:
            bound.client_gone()
            await self._follow(client, stream, answer, bound, hold)
        ending = endings.streamed(stream, call.likely)
        ending.outcome, ending.client_lost = Outcome.CLIENT_DISCONNECTED, True
        return ending

    def _bound(self, call: Call) -> Deadline:
        return Deadline(self._drains, self._deadlines, within_s=self._request_s, workspace_id=call.route.workspace_id)

    async def _end(self, client: Client, call: Call, ending: Ending, key: Key) -> None:
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
        self._requests.ended(call, ending, key)
        if ending.reply is not None:
            ending.reply.lines += call.header_lines()
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

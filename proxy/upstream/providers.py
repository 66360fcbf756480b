"""Calls each target as its provider speaks, so that the flow sees chat completions whoever answers.

A request for a target of chat completions passes without a step of its own.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec.structs import replace

from proxy.core import replies
from proxy.core.calls import BrokenOffError, Dialect, Failure, UpstreamRequest
from proxy.core.endings import MAX_PLAIN_BYTES
from proxy.core.replies import Headers, Reply
from proxy.dialects import vertex
from proxy.dialects.anthropic import answer as messages
from proxy.dialects.anthropic import request as messages_request
from proxy.dialects.anthropic.stream import TranslatedStream
from proxy.dialects.chat import Invalid
from proxy.upstream.access_tokens import AccessTokens
from proxy.upstream.pool import HttpAnswer, Upstreams
from runtime.memory_files import Content

_TRANSLATED_AT_ONCE_BYTES = 256 * 1024
_CONTENT_TYPE = b"content-type"


class Translation(Protocol):
    """A stream as it is written anew."""

    broken: bool
    """Whether no more can be read of it."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what a chunk comes to."""

    def finish(self) -> bytes:
        """Return what its clean end comes to."""

    def cut(self) -> bytes:
        """Return what any other end comes to."""


class GivenAnswer:
    """An answer of the gateway's own, where the upstream is not called."""

    is_event_stream = False

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers: Headers = reply.headers
        self._rest: bytes | None = reply.body

    def whole_at_once(self) -> bytes | None:
        """Return the body."""
        rest, self._rest = self._rest, None
        return rest

    async def read_chunk(self) -> bytes | None:
        """Return the body, then None."""
        rest, self._rest = self._rest, None
        return rest

    def expect_end(self) -> None:
        """Do nothing: it is all there."""

    async def close(self) -> None:
        """Do nothing: no connection is held."""


class TranslatedAnswer:
    """An answer whose body is written anew: whole ones at their end, streams as they come."""

    def __init__(self, answer: HttpAnswer, status: int) -> None:
        self.status = status
        self.headers = answer.headers
        self.is_event_stream = answer.is_event_stream
        self._answer = answer

    def whole_at_once(self) -> bytes | None:
        """Return None: it has to be translated."""
        return None

    def expect_end(self) -> None:
        """Say that only the end of the answer is missing."""
        self._answer.expect_end()

    async def close(self) -> None:
        """Give the connection back."""
        await self._answer.close()


class WholeAnswer(TranslatedAnswer):
    """An answer that is translated when all of it has come."""

    def __init__(
        self, answer: HttpAnswer, status: int, hold: Callable[[int], None], translate: Callable[[bytes], bytes]
    ) -> None:
        """`hold` is told how much there is; it raises AnswersFullError."""
        super().__init__(answer, status)
        kept = [(name, value) for name, value in answer.headers if name != _CONTENT_TYPE]
        self.headers = [(_CONTENT_TYPE, b"application/json"), *kept]
        self.is_event_stream = False
        self._hold = hold
        self._translate = translate
        self._body = bytearray()
        self._ended = False

    async def read_chunk(self) -> bytes | None:
        """Return nothing for each chunk that comes, then the translation, then None. Raise BrokenOffError."""
        if self._ended:
            return None
        chunk = await self._answer.read_chunk()
        if chunk is not None:
            self._body += chunk
            if len(self._body) > MAX_PLAIN_BYTES:
                raise BrokenOffError("the answer is too large")
            self._hold(len(self._body))
            return b""
        self._ended = True
        try:
            return self._translate(bytes(self._body))
        except messages.UnreadableAnswerError:
            raise BrokenOffError("the answer is none of the provider's API") from None


class StreamedAnswer(TranslatedAnswer):
    """A stream that is translated as it comes."""

    def __init__(self, answer: HttpAnswer, translation: Translation) -> None:
        super().__init__(answer, answer.status)
        self._translation = translation
        self._problem: BrokenOffError | None = None
        self._ended = False

    async def read_chunk(self) -> bytes | None:
        """Return what the next chunk comes to, also if that is nothing; None at the end. Raise BrokenOffError."""
        if self._problem is not None:
            raise self._problem
        if self._ended:
            return None
        try:
            chunk = await self._answer.read_chunk()
        except BrokenOffError as error:
            self._problem = error
            return self._translation.cut()
        self._ended = chunk is None
        ready = self._translation.finish() if chunk is None else self._translation.feed(chunk)
        if self._translation.broken:
            self._problem = BrokenOffError("the stream is not whole")
        return ready


def _translated(body: Content, most: int) -> bytes | Invalid:
    return messages_request.translate(bytes(body), default_max_tokens=most)


_Opened = HttpAnswer | WholeAnswer | StreamedAnswer | GivenAnswer | Failure


class Providers:
    """The upstreams of a proxy, by what they speak. `now_s` is Unix time in seconds."""

    def __init__(
        self, upstreams: Upstreams, tokens: AccessTokens, *, default_max_tokens: int, now_s: Callable[[], float]
    ) -> None:
        self._upstreams = upstreams
        self._tokens = tokens
        self._default_max_tokens = default_max_tokens
        self._now_s = now_s
        self._by_dialect: dict[Dialect, Callable[[UpstreamRequest], Coroutine[Any, Any, _Opened]]] = {
            Dialect.CHAT: upstreams.open,
            Dialect.MESSAGES: self._messages,
            Dialect.PASSED_MESSAGES: self._passed_messages,
            Dialect.VERTEX: self._vertex,
        }

    def open(self, request: UpstreamRequest) -> Coroutine[Any, Any, _Opened]:
        """Return the answer when its head is there, as one of chat completions."""
        return self._by_dialect[request.dialect](request)

    async def close(self) -> None:
        """End every connection."""
        await self._tokens.close()
        await self._upstreams.close()

    async def _messages(self, request: UpstreamRequest) -> _Opened:
        body, most = request.body, request.max_output_tokens or self._default_max_tokens
        if not isinstance(body, bytes) or len(body) > _TRANSLATED_AT_ONCE_BYTES:
            translated = await asyncio.to_thread(_translated, body, most)
        else:
            translated = messages_request.translate(body, default_max_tokens=most)
        if isinstance(translated, Invalid):
            return GivenAnswer(replies.bad_request(translated.message, translated.param))
        lines = (
            f"x-api-key: {request.credential or ''}\r\nanthropic-version: {messages_request.API_VERSION}\r\n".encode()
        )
        opened = await self._upstreams.open(replace(request, body=translated, credential=None, header_lines=lines))
        if isinstance(opened, Failure):
            return opened
        created, status = int(self._now_s()), opened.status
        if status >= 400:
            return WholeAnswer(
                opened, messages.error_status(status), request.hold, lambda body: messages.error(status, body).body
            )
        if status >= 300:
            return opened
        if opened.is_event_stream:
            return StreamedAnswer(opened, TranslatedStream(created=created))
        return WholeAnswer(opened, status, request.hold, lambda body: messages.plain(body, created=created))

    async def _passed_messages(self, request: UpstreamRequest) -> _Opened:
        line = f"x-api-key: {request.credential or ''}\r\n".encode()
        opened = await self._upstreams.open(replace(request, credential=None, header_lines=line))
        if isinstance(opened, HttpAnswer):
            opened.pass_header(b"request-id")
        return opened

    async def _vertex(self, request: UpstreamRequest) -> _Opened:
        key = request.credential or ""
        request = replace(request, on_sent=None)  # it may be sent again, with another token
        token = await self._tokens.token(key)
        opened = await self._with_token(request, token)
        if not isinstance(opened, GivenAnswer | Failure) and opened.status == 401:
            await opened.close()
            opened = await self._with_token(request, await self._tokens.token(key, instead_of=token))
        if isinstance(opened, GivenAnswer | Failure):
            return opened
        status = opened.status
        if status >= 400:
            return WholeAnswer(opened, status, request.hold, lambda body: vertex.error(status, body))
        return StreamedAnswer(opened, vertex.CallNumberer()) if opened.is_event_stream else opened

    async def _with_token(self, request: UpstreamRequest, token: str | None) -> HttpAnswer | GivenAnswer | Failure:
        if token is None:
            return GivenAnswer(replies.upstream_refused_credential())
        return await self._upstreams.open(replace(request, credential=token))

"""Serves an OpenAI-compatible upstream that costs nothing, and keeps its own account of what it answered.

`POST {anything}/chat/completions`, `GET {anything}/models`, `GET /account`. The account has one line for each request
that was answered 200: written before the answer's last byte is handed over, so whoever has read an answer finds it
there. A stream that its client or `break_rate` cut short is there with the output that was counted by then; a plain
answer is there in full whether or not its client waited. Refusals and failures are not.
"""

import asyncio
import base64
import contextlib
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from schemas.base import rfc3339
from tollgate.tools import mock_answers

MAX_BODY_BYTES = 64 * 1024 * 1024
_STOP_S = 5
_MODELS = b'{"object":"list","data":[{"id":"mock-model","object":"model","created":0,"owned_by":"mock"}]}'
_JSON = (b"content-type", b"application/json")
_STREAM_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")],
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    """How the upstream behaves. Rates lie between 0 and 1 and are spread evenly: 0.5 is every second request."""

    tokens: int = 16
    """The most output tokens of one choice."""
    cached_tokens: int = 0
    latency_ms: int = 0
    """Before the first byte."""
    chunk_interval_ms: int = 0
    """Between the chunks of a stream; 0 as fast as they go."""
    fail_rate: float = 0.0
    break_rate: float = 0.0
    """Streams whose connection ends after half of their content."""
    usage: bool = True
    """Whether answers tell their token counts."""
    account: Path | None = None
    record: Path | None = None


class LineFile:
    """A JSON Lines file whose lines outlive a kill of this process: each is with the system when `append` returns."""

    def __init__(self, path: Path) -> None:
        """Open for appending. Raise OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # a line that a full disk cut short must not swallow the next

    def append(self, line: dict[str, Any]) -> None:
        """Write one line. Raise OSError."""
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Account:
    """What was answered: sums in memory, lines in a file where there is one."""

    def __init__(self, path: Path | None) -> None:
        """Begin with what the file holds already. Raise OSError."""
        self.requests = self.input_tokens = self.output_tokens = 0
        for line in _read_lines(path):
            self._add(line["input_tokens"], line["output_tokens"])
        self._file = LineFile(path) if path else None

    def enter(self, request_id: str | None, answer: mock_answers.MockAnswer, output_tokens: int) -> None:
        """Enter one answered request. Raise OSError where the file cannot take it."""
        if self._file is not None:
            entry = {
                "request_id": request_id,
                "model": answer.model,
                "input_tokens": answer.input_tokens,
                "output_tokens": output_tokens,
                "completed_at": rfc3339(datetime.now(UTC)),
            }
            self._file.append(entry)
        self._add(answer.input_tokens, output_tokens)

    def sums(self) -> dict[str, int]:
        """Return the sums as `GET /account` does."""
        return {
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _add(self, input_tokens: int, output_tokens: int) -> None:
        self.requests += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


class MockUpstream:
    """The ASGI application."""

    def __init__(self, options: Options) -> None:
        """Open the files that the options name. Raise OSError."""
        self.options = options
        self.account = Account(options.account)
        self._record = LineFile(options.record) if options.record else None
        self._serial = itertools.count(1)
        self._fails = spread(options.fail_rate)
        self._breaks = spread(options.break_rate)

    def close(self) -> None:
        """Close the files."""
        self.account.close()
        if self._record is not None:
            self._record.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        method: str = scope["method"]
        if path.endswith("/chat/completions"):
            if method == "POST":
                await self._complete(scope, receive, send)
            else:
                await _refuse(send, 405, "chat completions are asked for with POST")
        elif method == "GET" and path.endswith("/models"):
            await _answer(send, 200, _MODELS)
        elif method == "GET" and path == "/account":
            await _answer(send, 200, msgspec.json.encode(self.account.sums()))
        else:
            await _refuse(send, 404, f"nothing answers {method} {path}")

    async def _complete(self, scope: Message, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None:
            await _refuse(send, 413, f"a body may have at most {MAX_BODY_BYTES} bytes")
            return
        if self._record is not None:
            self._record.append(_recorded(scope, body))
        if next(self._fails):
            await _refuse(send, 500, "this one was meant to fail (--fail-rate)")
            return
        options = self.options
        try:
            request = mock_answers.parse(body)
        except mock_answers.BadRequestError as error:
            await _refuse(send, 400, str(error))
            return
        answer = mock_answers.decide(request, options.tokens, options.cached_tokens, options.usage)
        beginning = mock_answers.beginning(next(self._serial), int(time.time()))
        request_id = _header(scope, b"x-request-id")
        if request.stream:
            await self._stream(request_id, answer, beginning, receive, send)
            return
        if options.latency_ms:
            await asyncio.sleep(options.latency_ms / 1000)
        self.account.enter(request_id, answer, answer.output_tokens)
        await _answer(send, 200, beginning + mock_answers.plain(answer))

    async def _stream(
        self, request_id: str | None, answer: mock_answers.MockAnswer, beginning: bytes, receive: Receive, send: Send
    ) -> None:
        rendered = mock_answers.stream(answer)
        opening = b"data: " + beginning
        broken = next(self._breaks)
        pieces = len(rendered.pieces)
        frames = (_joined(opening, rendered.head), *[opening + event for event in rendered.pieces])
        sent = 0
        gone = asyncio.ensure_future(receive())  # after the body, the next message says that the client went
        try:
            for number, frame in enumerate(frames[: 1 + pieces // 2] if broken else frames):
                await _pause(gone, self.options.chunk_interval_ms if number else self.options.latency_ms)
                if gone.done():
                    break
                if number == 0:
                    await send(dict(_STREAM_START))
                await send(_chunk(frame))
                sent = number
            whole = not broken and not gone.done()
        finally:
            gone.cancel()
            self.account.enter(request_id, answer, answer.output_tokens * sent // pieces)
        if whole:
            await send(_chunk(_joined(opening, rendered.tail) + b"data: [DONE]\n\n", last=True))


@dataclass(frozen=True, slots=True)
class Running:
    """A mock upstream that takes requests."""

    url: str
    """Base URL with the version path, as a target's `base_url`."""
    app: MockUpstream
    server: asyncio.Task[None]
    """Ends only when it is told to, or with the error that ended it."""


@contextlib.asynccontextmanager
async def running(options: Options, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Running]:
    """Serve on `port` (0: a free one) for the length of the block. Raise OSError where it cannot."""
    app = MockUpstream(options)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
        server = _Server(_config(app))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        name = f"[{host}]" if family is socket.AF_INET6 else host
        try:
            yield Running(f"http://{name}:{listener.getsockname()[1]}/v1", app, task)
        finally:
            server.should_exit = True
            await task
    finally:
        app.close()


async def serve(options: Options, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets the base URL once it takes requests. Raise OSError."""
    # Broken streams are asked for; uvicorn would report each as an error. Here the process is ours alone.
    logging.getLogger("uvicorn.error").addFilter(_no_broken_streams)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options, host, port) as upstream:
        announce(upstream.url)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, upstream.server), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: uvicorn would raise them again at its end, and SIGTERM would not exit with 0."""
        yield


def _config(app: MockUpstream) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_STOP_S,
    )


def _no_broken_streams(record: logging.LogRecord) -> bool:
    return "without completing response" not in record.getMessage()


async def _pause(gone: asyncio.Future[Message], wait_ms: int) -> None:
    if wait_ms:
        await asyncio.wait((gone,), timeout=wait_ms / 1000)


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, None where it is too large."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        if len(body) > MAX_BODY_BYTES:
            return None
        message = await receive()
        body += message.get("body", b"")
    return body


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, status: int, message: str) -> None:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    await _answer(send, status, msgspec.json.encode({"error": error}))


def _chunk(body: bytes, last: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": not last}


def _joined(opening: bytes, events: Sequence[bytes]) -> bytes:
    return b"".join([opening + event for event in events])


def _header(scope: Message, name: bytes) -> str | None:
    return next((value.decode("latin-1") for given, value in scope["headers"] if given == name), None)


def _recorded(scope: Message, body: bytes) -> dict[str, Any]:
    return {
        "request_id": _header(scope, b"x-request-id"),
        "path": scope["path"],
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
        "body": base64.b64encode(body).decode(),
    }


def spread(rate: float) -> Iterator[bool]:
    """Say yes as often as `rate` asks, evenly: the same run always hits the same requests."""
    for count in itertools.count():
        yield int((count + 1) * rate) > int(count * rate)


def _read_lines(path: Path | None) -> Iterator[dict[str, Any]]:
    if path is None or not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):  # a line cut short by a full disk was never answered
                yield msgspec.json.decode(line)

"""The upstream of attacked gateways, a program of its own: it does what the model's name says."""

import asyncio
import re
import sys
from contextlib import suppress

import uvloop

QUICK, SILENT, LARGE, FLOOD, SLOW = MODELS = ("quick", "silent", "large", "flood", "slow")
LARGE_BYTES = 15 * 1024 * 1024
_MODEL = re.compile(rb'"model": ?"([a-z]+)"')
_LENGTH = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)
_USAGE = b'"usage":{"prompt_tokens":5,"completion_tokens":2}}'
_ANSWER = b'{"id":"1","model":"m","choices":[{"message":{"content":"hello"},"finish_reason":"stop"}],' + _USAGE
_LARGE = _ANSWER.replace(b"hello", b"x" * LARGE_BYTES)
_EVENT = b'data: {"model":"m","choices":[{"delta":{"content":"x"}}]}\n\n' * 200
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_FOR_EVER_S = 3600.0


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def _answer(model: bytes, writer: asyncio.StreamWriter) -> None:
    if model == QUICK.encode():
        writer.write(_whole(_ANSWER))
    elif model == LARGE.encode():
        writer.write(_whole(_LARGE))
    elif model == FLOOD.encode():
        writer.write(_STREAM)
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await writer.drain()
    elif model == SLOW.encode():
        writer.write(_STREAM)
        while True:
            writer.write(b"1\r\n:\r\n")
            await writer.drain()
            await asyncio.sleep(1)  # one byte a second is the attack
    else:
        await asyncio.sleep(_FOR_EVER_S)
    await writer.drain()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            model = _MODEL.search(body)
            named = model[1] if model else b""
            del body, model  # it would be held for as long as the answer takes
            await _answer(named, writer)
    writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, limit=2**20)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(_main(int(sys.argv[1])))

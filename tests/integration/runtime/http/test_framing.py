"""What could be read in two ways is read in none: 400, and the connection is ended (RFC 9112 2.2, 5, 6)."""

import pytest

from tests.integration.runtime.http.wire import echo, request, serving

CHUNKED = "transfer-encoding: chunked"
AMBIGUOUS = {
    "length and coding": request("content-length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "coding and length": request(CHUNKED, "content-length: 5", body=b"0\r\n\r\n"),
    "two lengths": request("content-length: 3", "content-length: 4", body=b"abcd"),
    "two equal lengths": request("content-length: 3", "content-length: 3", body=b"abc"),
    "a list of lengths": request("content-length: 3, 3", body=b"abc"),
    "a length with a sign": request("content-length: +3", body=b"abc"),
    "a negative length": request("content-length: -3", body=b"abc"),
    "a hexadecimal length": request("content-length: 0x3", body=b"abc"),
    "an empty length": request("content-length: ", body=b"abc"),
    "a length beyond numbers": request("content-length: 99999999999999999999", body=b"abc"),
    "another coding": request("transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "another coding alone": request("transfer-encoding: gzip", body=b"abc"),
    "no coding": request("transfer-encoding: identity", body=b"abc"),
    "two coding headers": request("transfer-encoding: identity", CHUNKED, body=b"0\r\n\r\n"),
    "chunked twice": request(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "a quoted coding": request('transfer-encoding: "chunked"', body=b"0\r\n\r\n"),
    "a coding in 1.0": request(CHUNKED, body=b"0\r\n\r\n", version="1.0"),
    "bare LF after the request line": b"GET /a HTTP/1.1\nhost: x\r\n\r\n",
    "bare LF after a header": b"GET /a HTTP/1.1\r\nhost: x\na: b\r\n\r\n",
    "bare LF at the end": b"GET /a HTTP/1.1\r\nhost: x\r\n\n",
    "bare CR": b"GET /a HTTP/1.1\r\nhost: x\rb: c\r\n\r\n",
    "a folded header": request("a: b\r\n c"),
    "a folded header by a tab": request("a: b\r\n\tc"),
    "a folded first header": b"GET /a HTTP/1.1\r\n host: x\r\n\r\n",
    "a folded coding": request("transfer-encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "NUL in a value": request("a: b\0c"),
    "NUL in a name": request("a\0b: c"),
    "a control character": request("a: b\x01c"),
    "blank before the colon": request("content-length : 3", body=b"abc"),
    "tab before the colon": request("content-length\t: 3", body=b"abc"),
    "no colon": request("abc"),
    "no name": request(": abc"),
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "two hosts": request("host: y"),
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/2.0": request(version="2.0"),
    "HTTP/1.2": request(version="1.2"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "another host in its target": request(path="http://y/a"),
    "the host with a port in its target": request(path="http://x:80/a"),
    "a bad target": b"GET /a\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    "chunk size with LF": request(CHUNKED, body=b"3\nabc\r\n0\r\n\r\n"),
    "chunk without CR": request(CHUNKED, body=b"3\r\nabc\n0\r\n\r\n"),
    "chunk size in C's way": request(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size with a sign": request(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size beyond numbers": request(CHUNKED, body=b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    "LF in a chunk's extension": request(CHUNKED, body=b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "a length among trailers": request(CHUNKED, body=b"3\r\nabc\r\n0\r\ncontent-length: 5\r\n\r\n"),
}


FIRST = {"bare LF before the request": b"\nGET /a HTTP/1.1\r\nhost: x\r\n\r\n"}
"""Only at the beginning of what comes: within it the parser passes over a line that is empty, however it ends."""


@pytest.mark.parametrize("sent", (AMBIGUOUS | FIRST).values(), ids=AMBIGUOUS | FIRST)
async def test_it_is_refused_and_the_connection_ended(sent: bytes) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(sent + request(path="/next"))
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert await wire.ended() == b"", "what followed was read as a request"


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_came_before_it_is_answered(sent: bytes) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request(method="GET", path="/first") + sent)
        assert (await wire.answer()).json()["path"] == "/first"
        assert (await wire.answer()).status == 400
        assert await wire.ended() == b""


UNUSUAL = {
    "chunk extensions": request(CHUNKED, body=b"3;a=b;c\r\nabc\r\n0\r\n\r\n"),
    "trailers": request(CHUNKED, body=b"3\r\nabc\r\n0\r\na: b\r\nc: d\r\n\r\n"),
    "leading zeros": request(CHUNKED, body=b"0003\r\nabc\r\n000\r\n\r\n"),
    "the coding in capitals": request("Transfer-Encoding: Chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "a length with zeros": request("content-length: 003", body=b"abc"),
    "blanks around the length": request("content-length: \t 3 ", body=b"abc"),
    "an empty line before": b"\r\n" + request("content-length: 3", body=b"abc"),
    "upgrade without connection": request("upgrade: h2c", "content-length: 3", body=b"abc"),
}


@pytest.mark.parametrize("sent", UNUSUAL.values(), ids=UNUSUAL)
async def test_what_is_only_unusual_is_served(sent: bytes) -> None:
    async with serving(echo) as port, port.wire() as wire:
        for _ in range(2):
            await wire.send(sent)
            answer = await wire.answer()
            assert (answer.status, answer.json()["body"]) == (200, "abc")


async def test_targets_of_every_form() -> None:
    async with serving(echo) as port, port.wire() as wire:
        for target, path in (("/a%2Fb?c=d", "/a/b"), ("http://x/a?c=d", "/a"), ("http://x?c=d", "/"), ("*", "*")):
            await wire.send(request(method="OPTIONS", path=target))
            answer = (await wire.answer()).json()
            assert (answer["path"], answer["query"]) == (path, "c=d" if "?" in target else "")

"""A request that asks for another protocol is served as if it had not (RFC 9110 7.8): its body is its body."""

import pytest

from tests.integration.runtime.http.wire import echo, request, serving

UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "websocket": ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA=="),
    "nonsense": ("connection: upgrade", "upgrade: TLS/1.0, nonsense/9"),
    "twice": ("connection: upgrade", "upgrade: h2c", "upgrade: websocket"),
    "last": ("content-type: text/plain", "upgrade: h2c", "connection: upgrade"),
}
NEXT = request(method="GET", path="/next")


@pytest.mark.parametrize("asked", UPGRADES.values(), ids=UPGRADES)
async def test_a_body_of_a_told_length(asked: tuple[str, ...]) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request(*asked, "content-length: 24", body=b"GET /stolen HTTP/1.1\r\n\r\n"))
        answer = await wire.answer()
        assert (answer.status, answer.json()["body"]) == (200, "GET /stolen HTTP/1.1\r\n\r\n")
        await wire.send(NEXT)
        assert (await wire.answer()).json()["path"] == "/next"


@pytest.mark.parametrize("asked", UPGRADES.values(), ids=UPGRADES)
async def test_a_chunked_body(asked: tuple[str, ...]) -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(request(*asked, "transfer-encoding: chunked", body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
        assert (await wire.answer()).json()["body"] == "abcde"
        await wire.send(NEXT)
        assert (await wire.answer()).json()["path"] == "/next"


@pytest.mark.parametrize("asked", UPGRADES.values(), ids=UPGRADES)
async def test_no_body(asked: tuple[str, ...]) -> None:
    async with serving(echo) as port, port.wire() as wire:
        for path in ("/one?a=b", "/two"):
            await wire.send(request(*asked, method="GET", path=path))
            answer = (await wire.answer()).json()
            assert (answer["method"], answer["path"], answer["body"]) == ("GET", path.partition("?")[0], "")


async def test_a_body_that_comes_later_and_in_pieces() -> None:
    async with serving(echo) as port, port.wire() as wire:
        for byte in request(*UPGRADES["h2c"], "content-length: 5", body=b"abcde"):
            await wire.send(bytes([byte]))
        assert (await wire.answer()).json()["body"] == "abcde"


async def test_pipelined() -> None:
    """Each is answered in its turn, also where every one of them asks."""
    one = request(*UPGRADES["h2c"], "content-length: 3", body=b"one")
    two = request(*UPGRADES["websocket"], "transfer-encoding: chunked", body=b"3\r\ntwo\r\n0\r\n\r\n")
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(one + NEXT + two + one + NEXT)
        answers = [(await wire.answer()).json() for _ in range(5)]
        assert [answer["body"] or answer["path"] for answer in answers] == ["one", "/next", "two", "one", "/next"]


async def test_a_tunnel_is_refused_and_the_connection_ended() -> None:
    async with serving(echo) as port, port.wire() as wire:
        await wire.send(b"CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\n\r\nGET /stolen HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await wire.answer()).status == 400
        assert await wire.ended() == b""


async def test_framing_is_judged_as_without() -> None:
    for ambiguous in (("content-length: 3", "transfer-encoding: chunked"), ("transfer-encoding: gzip, chunked",)):
        async with serving(echo) as port, port.wire() as wire:
            await wire.send(request(*UPGRADES["h2c"], *ambiguous, body=b"0\r\n\r\n"))
            assert (await wire.answer()).status == 400
            assert await wire.ended() == b""

"""A token is asked for once, kept while it is young, renewed before it ends, and missed only when it has ended."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError

from runtime.kafka.security import Sasl, SaslMechanism
from runtime.kafka.tokens import KafkaTokens

SASL = Sasl(
    SaslMechanism.OAUTHBEARER,
    token_url="https://login.lab.example/token",
    client_id="a client",
    client_secret="hu:sh",
    scope="kafka",
)


class Server:
    """Answers by number; its clock is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[int], httpx.Response] = lambda number: httpx.Response(
            200, json={"access_token": f"token-{number}", "expires_in": 100}
        )

    def tokens(self) -> KafkaTokens:
        return KafkaTokens(SASL, transport=httpx.MockTransport(self._handle), steady=lambda: self.now_s)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(len(self.requests))


async def test_it_is_asked_for_as_the_rfc_says() -> None:
    server = Server()
    assert await server.tokens().token() == "token-1"
    (request,) = server.requests
    assert request.method == "POST"
    assert request.headers["authorization"] == httpx.BasicAuth("a+client", "hu%3Ash")._auth_header
    assert request.content == b"grant_type=client_credentials&scope=kafka"


async def test_many_connections_at_once_ask_once() -> None:
    server = Server()
    tokens = server.tokens()
    assert set(await asyncio.gather(*(tokens.token() for _ in range(20)))) == {"token-1"}
    assert len(server.requests) == 1


async def test_it_is_renewed_before_it_ends() -> None:
    server = Server()
    tokens = server.tokens()
    found = []
    for server.now_s in (1000, 1079.9, 1080, 1159.9, 1160):
        found.append(await tokens.token())
    assert found == ["token-1", "token-1", "token-2", "token-2", "token-3"]


async def test_an_old_one_is_good_while_no_new_one_comes_until_it_ends() -> None:
    server = Server()
    tokens = server.tokens()
    await tokens.token()
    server.answer = lambda _: httpx.Response(503)
    server.now_s = 1099.9
    assert await tokens.token() == "token-1"
    server.now_s = 1100
    with pytest.raises(KafkaConnectionError, match=r"https://login\.lab\.example/token answers 503"):
        await tokens.token()


async def test_one_without_an_end_is_for_one_connection() -> None:
    server = Server()
    server.answer = lambda number: httpx.Response(200, json={"access_token": f"token-{number}"})
    tokens = server.tokens()
    assert [await tokens.token(), await tokens.token()] == ["token-1", "token-2"]


def _refuses(_: int) -> httpx.Response:
    raise httpx.ConnectError("nobody there")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: httpx.Response(401, json={"error": "invalid_client"}), "answers 401"),
        (lambda _: httpx.Response(302, headers={"location": "http://x"}), "answers 302"),
        (lambda _: httpx.Response(200, text="<html>"), "gives no token"),
        (lambda _: httpx.Response(200, json={"access_token": ""}), "gives no token"),
        (lambda _: httpx.Response(200, json={"access_token": 1, "expires_in": "soon"}), "gives no token"),
        (_refuses, "cannot be asked: nobody there"),
    ],
)
async def test_a_server_that_gives_none_is_an_outage_that_is_named(
    answer: Callable[[int], httpx.Response], said: str
) -> None:
    server = Server()
    server.answer = answer
    with pytest.raises(KafkaConnectionError, match=said) as error:
        await server.tokens().token()
    assert "hu:sh" not in str(error.value)

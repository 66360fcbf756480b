"""How proxies are asked for what they have not published, and what a bad answer says."""

from collections.abc import Callable, Iterator
from datetime import date

import httpx
import pytest

from schemas.spool import SpoolFigures
from tollgate.reconciliation.compare import ReconcileError
from tollgate.reconciliation.proxies import Proxies

Answer = Callable[[httpx.Request], httpx.Response]
NOTHING = {
    "instance": "a",
    "workspace_id": None,
    "day": None,
    "requests": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "acknowledged_through": 7,
    "last_sequence": 7,
}
SOME = NOTHING | {
    "workspace_id": "ws",
    "day": "2026-03-10",
    "requests": 2,
    "input_tokens": 20,
    "output_tokens": 10,
    "last_sequence": 9,
}


def asked(answer: Answer, *addresses: str) -> list[SpoolFigures]:
    return Proxies(addresses or ("http://proxy:8081",), httpx.MockTransport(answer)).ask()


def answering(rows: object) -> Answer:
    return lambda _: httpx.Response(200, json=rows)


def test_each_proxy_is_asked_at_its_ops_port() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json=[NOTHING | {"instance": request.url.host}])

    rows = asked(answer, "http://one:8081", "https://two/")
    assert seen == ["http://one:8081/spool", "https://two/spool"]
    assert [row.instance for row in rows] == ["one", "two"]


def test_a_row_is_read_as_it_is() -> None:
    (row,) = asked(answering([SOME]))
    assert (row.workspace_id, row.day, row.requests) == ("ws", date(2026, 3, 10), 2)
    assert (row.acknowledged_through, row.last_sequence) == (7, 9)


def test_of_an_instance_that_two_report_the_report_that_is_further_counts() -> None:
    older = [SOME, SOME | {"workspace_id": "other"}]
    answers = {"one": older, "two": [NOTHING | {"acknowledged_through": 8}], "three": older}
    rows = asked(
        lambda request: httpx.Response(200, json=answers[request.url.host]), *(f"http://{name}" for name in answers)
    )
    assert [(row.workspace_id, row.acknowledged_through) for row in rows] == [(None, 8)]


def fails(error: type[httpx.HTTPError]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("it went wrong")

    return answer


def drips(_: httpx.Request) -> httpx.Response:
    def body() -> Iterator[bytes]:
        while True:
            yield b" " * 1024 * 1024

    return httpx.Response(200, content=body())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (fails(httpx.ConnectError), "the proxy at http://proxy:8081 does not answer: it went wrong"),
        (fails(httpx.ReadTimeout), "the proxy at http://proxy:8081 does not answer: it went wrong"),
        (lambda _: httpx.Response(404), "the proxy at http://proxy:8081 answered 404 to GET /spool"),
        (lambda _: httpx.Response(307, headers={"location": "http://elsewhere"}), "answered 307"),
        (lambda _: httpx.Response(200, text="<html>"), "sent no spool report: the body: Invalid JSON"),
        (answering({"rows": []}), "sent no spool report: the body: Input should be a valid array"),
        (answering([SOME | {"requests": "many"}]), "sent no spool report: 0.requests: Input should be a valid integer"),
        (answering([{"instance": "a"}]), "sent no spool report: 0.workspace_id: Field required"),
        (drips, "answered more than"),
    ],
)
def test_a_bad_answer_is_one_line(answer: Answer, said: str) -> None:
    with pytest.raises(ReconcileError) as caught:
        asked(answer)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_that_takes_too_long_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1_000_000, 20))
    with pytest.raises(ReconcileError, match="does not answer: it took longer than 30 s"):
        Proxies(["http://proxy"], httpx.MockTransport(drips), clock=lambda: next(times)).ask()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8081", "ftp://proxy", "http://", "http://proxy/spool", "http://proxy?a=1", "http://a:b", ""]
)
def test_what_is_no_address_of_an_ops_port_is_one_line(address: str) -> None:
    with pytest.raises(ReconcileError, match="is no address of an ops port"):
        Proxies([address])

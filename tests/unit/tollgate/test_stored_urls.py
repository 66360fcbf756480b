"""Stored URLs are judged by the present settings, each kind by its own."""

import asyncio
from collections.abc import Sequence

import pytest

from runtime.settings import Settings
from tollgate import stored_urls
from tollgate.stored_urls import Stored

ADDRESSES = {"public.example": ["1.1.1.1"], "inside.example": ["1.1.1.1", "10.0.0.7"]}


async def look_up(host: str, port: int) -> Sequence[str]:
    assert port == 443
    if host == "slow.example":
        await asyncio.Event().wait()
    if host not in ADDRESSES:
        raise OSError(f"{host} is not known")
    return ADDRESSES[host]


def upstream(url: str, owner: str = "endpoint a/b of workspace lab") -> Stored:
    return Stored(owner, url, "allow_private_upstreams")


def receiver(url: str) -> Stored:
    return Stored("webhook of workspace lab", url, "allow_private_receivers")


def refused(*stored: Stored, **allowed: bool) -> Sequence[str]:
    return stored_urls.refused(Settings.model_validate(allowed), stored, look_up)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://public.example/v1", "must begin with https://"),
        ("https://public.example:8443/v1", "must not name a port"),
        ("https://10.0.0.7/v1", "10.0.0.7 is not a public address (private)"),
        ("https://inside.example/v1", "inside.example: 10.0.0.7 is not a public address (private)"),
    ],
)
def test_what_is_private_is_named_with_the_setting_that_allows_it(url: str, reason: str) -> None:
    (line,) = refused(upstream(url))
    assert line.startswith("endpoint a/b of workspace lab is refused: ")
    assert reason in line
    assert "; set TOLLGATE_ALLOW_PRIVATE_UPSTREAMS=true " in line
    (line,) = refused(receiver(url))
    assert line.startswith("webhook of workspace lab is refused: ")
    assert "; set TOLLGATE_ALLOW_PRIVATE_RECEIVERS=true " in line


def test_each_setting_allows_its_own_kind_alone() -> None:
    stored = upstream("https://inside.example/"), receiver("http://inside.example:9000/")
    assert [line.split()[0] for line in refused(*stored, allow_private_upstreams=True)] == ["webhook"]
    assert [line.split()[0] for line in refused(*stored, allow_private_receivers=True)] == ["endpoint"]
    assert not refused(*stored, allow_private_upstreams=True, allow_private_receivers=True)


def test_what_is_public_and_what_is_not_known_here_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_urls, "_WITHIN_S", 0.01)
    hosts = ("public.example", "public.example:443", "unknown.example", "slow.example")
    assert not refused(*(upstream(f"https://{host}/v1") for host in hosts))
    assert len(refused(upstream("https://slow.example/"), upstream("https://inside.example/"))) == 1


def test_the_list_is_bounded_and_says_how_many_more() -> None:
    lines = refused(*(upstream("http://public.example/", f"endpoint {number}") for number in range(23)))
    assert [line.split(" is ")[0] for line in lines] == [*(f"endpoint {number}" for number in range(20)), "and 3 more"]


def test_only_the_first_names_are_looked_up() -> None:
    names = [upstream(f"https://n{number}.example/") for number in range(100)]
    assert not refused(*names, upstream("https://inside.example/"))
    assert refused(*names[1:], upstream("https://inside.example/"))

"""The wall of `/sync`: nothing passes that anything on the way could take for a step out of its place."""

import posixpath
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.calls import Envelope
from proxy.core.replies import Reply
from proxy.front import envelopes
from runtime.http.exchange import Exchange, Headers

HOSTILE = [
    "/..", "/.", "/a/..", "/a/../b", "/a/./b", "/%2e%2e/b", "/%2E%2e/b", "/.%2e/b", "/%252e%252e/b",
    "/%25252e%25252e/b", "/a%2f..%2fb", "/a%2F%2e%2e%2Fb", "/a%252f..%252fb", "/a%25252f..%25252fb",
    "/..%2f..%2fproduction/predict", "/..;/b", "/..;x=1/b", "/.;/b", "/..%3b/b", "/..%253bx/b", "/..%3f/b",
    "/..%23/b", "/a/..%00/b", "/%00", "/a%0d%0ab", "/a%250d%250a", "/a%09b", "/a%7fb", "/a\\b", "/a%5cb",
    "/..%5c..%5cb", "/a%255cb", "/a%25255cb", "//", "//evil.example/a", "/a//b", "/a%2f%2fb", "/a%252f/b",
    "/http://evil.example/", "/%c0%ae%c0%ae/b", "/a%c0%afb", "/a%c1%9cb", "/%25c0%25ae/b", "/%", "/%2", "/%zz",
    "/%u002e%u002e/b", "/a b", "/a\u00e9", "/\x01", "", "/",
]  # fmt: skip
HARMLESS = [
    "/v1/chat/completions", "/a", "/a/", "/a.b", "/..a", "/a..", "/...", "/.well-known/x", "/a;x=1/b", "/a%20b",
    "/a%C3%A9", "/%2525", "/a%3Ab", "/v1/models/org%2Fname", "/a:b@c", "/~u/$x,y+(z)!*'", "/a=1&b", "/a%3fb",
    "/%7Bx%7D",
]  # fmt: skip


def asked(target: bytes, method: bytes = b"POST", headers: Headers | None = None) -> Exchange:
    """Return a request, as the port hands it over."""
    return Exchange(None, method, target, headers or [])  # type: ignore[arg-type]


def sync(behind: str, **more: Any) -> Envelope | Reply:
    return envelopes.model_server(asked(b"/sync/lab/model" + behind.encode(), **more))


@pytest.mark.parametrize("behind", HOSTILE)
def test_what_could_lead_out_of_its_place_is_refused(behind: str) -> None:
    found = sync(behind)
    assert isinstance(found, Reply), found
    assert found.status == 400


@pytest.mark.parametrize("behind", HARMLESS)
@pytest.mark.parametrize("query", ["", "?a=1&b=%2e%2e/..&c"])
def test_the_rest_goes_on_as_it_came(behind: str, query: str) -> None:
    found = sync(behind + query)
    assert isinstance(found, Envelope), found
    assert (found.slug, found.suffix) == ("lab/model", behind + query)


@given(st.text("ab./%;\\25cefEF2\x00?#-", max_size=24))
def test_whatever_passes_stays_in_its_place_however_often_it_is_decoded(behind: str) -> None:
    found = sync("/x/" + behind)
    if isinstance(found, Reply):
        return
    text = found.suffix.partition("?")[0].encode()
    for _ in range(envelopes.DECODINGS + 1):
        for path in (text, *(text.split(mark)[0] for mark in (b"?", b"#"))):
            plain = b"/".join(segment.split(b";")[0] for segment in path.replace(b"\\", b"/").split(b"/"))
            assert posixpath.normpath(b"/base" + plain).startswith(b"/base/x")
        text = unquote_to_bytes(text)


@pytest.mark.parametrize(
    ("target", "slug", "suffix"),
    [
        ("/predict/lab/model", "lab/model", ""),
        ("/predict/lab%2Fmodel?x=1", "lab/model", "?x=1"),
        ("/async_predict/lab%2fmodel", "lab/model", ""),
        ("http://other.example/predict/lab/model", "lab/model", ""),
        ("/sync/lab%2Fmodel/a", "lab/model", "/a"),
        ("http://other.example/sync/lab/model/a?b#c", "lab/model", "/a?b"),
    ],
)
def test_where_the_slug_stands(target: str, slug: str, suffix: str) -> None:
    found = envelopes.model_server(asked(target.encode()))
    assert isinstance(found, Envelope)
    assert (found.slug, found.suffix) == (slug, suffix)


@pytest.mark.parametrize(
    "target",
    ["/predict/", "/predict/lab", "/predict/lab/model/more", "/predict/lab/model/", "/predict/%2e%2e/model",
     "/predict/lab/..", "/sync/lab", "/sync/../model/a", "/sync/lab%2f%2e%2e/a", "/predict/lab%00/model",
     "/predict/" + "a" * 300 + "/b", "/predict/lab%2Fmodel%2Fmore", "/predict/\xff/x"],
)  # fmt: skip
def test_what_names_no_slug_is_not_found(target: str) -> None:
    found = envelopes.model_server(asked(target.encode("latin-1")))
    assert isinstance(found, Reply)
    assert found.status == 404


@pytest.mark.parametrize("query", ["a b", "%", "%2", "\x7f", "\u00e9"])
def test_a_query_is_printable(query: str) -> None:
    found = sync("/a?" + query)
    assert isinstance(found, Reply)
    assert found.status == 400


def test_only_the_headers_that_may_go_on_do() -> None:
    given = [
        (b"cookie", b"s"),
        (b"content-type", b"image/png"),
        (b"accept", b"image/*"),
        (b"x-forwarded-for", b"1.2.3.4"),
    ]
    found = sync("/a", headers=given)
    assert isinstance(found, Envelope)
    assert found.header_lines == b"content-type: image/png\r\naccept: image/*\r\n"
    assert isinstance(bare := sync("/a", method=b"GET"), Envelope)
    assert (bare.method, bare.header_lines) == ("GET", b"accept: */*\r\n")


@pytest.mark.parametrize("headers", [[(b"accept", b"a\x01b")], [(b"accept", b"x" * 9000)], [(b"accept", b"\xff")]])
def test_headers_that_no_upstream_should_see_are_refused(headers: Headers) -> None:
    found = sync("/a", headers=headers)
    assert isinstance(found, Reply)
    assert found.status == 400


def test_versions_and_betas_of_the_messages_api_go_on_as_they_came() -> None:
    given = [
        (b"anthropic-version", b"2026-10-21"),
        (b"anthropic-beta", b"a,b"),
        (b"anthropic-beta", b"c"),
        (b"x-api-key", b"k"),
    ]
    found = envelopes.count_tokens(asked(b"/v1/messages/count_tokens?beta=true", headers=given))
    assert isinstance(found, Envelope)
    assert (found.slug, found.suffix) == (None, "/count_tokens?beta=true")
    assert found.header_lines.endswith(b"anthropic-version: 2026-10-21\r\nanthropic-beta: a,b\r\nanthropic-beta: c\r\n")
    assert b"x-api-key" not in found.header_lines

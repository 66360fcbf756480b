"""The Authorization header (contract 3)."""

import hashlib

import pytest

from proxy.core import keys
from proxy.core.keys import BadCredential, Credential

KEY = b"sky_abcdefghijkl.0123456789abcdef"
READ = Credential("sky_abcdefghijkl", KEY)


@pytest.mark.parametrize(
    "header", [b"Api-Key " + KEY, b"api-key " + KEY, b"API-KEY   " + KEY + b" ", b"  Api-Key " + KEY]
)
@pytest.mark.parametrize("accept_bearer", [False, True])
def test_api_key_is_read(header: bytes, *, accept_bearer: bool) -> None:
    assert keys.read(header, accept_bearer=accept_bearer) == READ


def test_bearer_is_refused_with_what_to_do_unless_it_is_allowed() -> None:
    refused = keys.read(b"Bearer " + KEY, accept_bearer=False)
    assert isinstance(refused, BadCredential)
    assert "Api-Key" in refused.message
    assert "default_headers" in refused.message
    assert KEY.decode() not in refused.message
    assert keys.read(b"bearer " + KEY, accept_bearer=True) == READ


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b" ",
        b"Api-Key",
        b"Api-Key ",
        KEY,
        b"Basic " + KEY,
        b"Api-Key\t" + KEY,
        b"Api-Key " + b"x" * 16,
        b"Api-Key " + b"x" * 129,
        b"Api-Key " + b"x" * 1_000_000,
        b"Api-Key " + b"\xff" * 40,
        b"x" * 1_000_000,
        b"\xff\x00",
    ],
)
@pytest.mark.parametrize("accept_bearer", [False, True])
def test_what_holds_no_key_is_refused_and_not_repeated(header: bytes | None, *, accept_bearer: bool) -> None:
    refused = keys.read(header, accept_bearer=accept_bearer)
    assert isinstance(refused, BadCredential)
    assert "Authorization: Api-Key <key>" in refused.message
    assert len(refused.message) < 200


@pytest.mark.parametrize("length", [17, 128])
def test_the_shortest_and_the_longest_key(length: int) -> None:
    assert keys.read(b"Api-Key " + b"x" * length, accept_bearer=False) == Credential("x" * 16, b"x" * length)


def test_only_the_whole_key_matches() -> None:
    digest = hashlib.sha256(KEY).digest()
    assert keys.matches(KEY, digest)
    assert not keys.matches(KEY[:-1], digest)
    assert not keys.matches(KEY + b"0", digest)
    assert not keys.matches(KEY, b"")
    assert not keys.matches(KEY, hashlib.sha256(digest).digest())


@pytest.mark.parametrize("place", range(32))
def test_every_byte_of_the_digest_is_compared(place: int) -> None:
    other = bytearray(hashlib.sha256(KEY).digest())
    other[place] ^= 1
    assert not keys.matches(KEY, bytes(other))

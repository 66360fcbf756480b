"""Answers that were compressed unasked: decoded in any cut, in bounded pieces, or refused (RFC 9110 8.4.1)."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from proxy.core.calls import BrokenOffError
from proxy.upstream.codings import PIECE_BYTES, Decoder

TEXT = b'{"model":"their-model","text":"' + bytes(range(32, 127)) * 50 + b'"}'


def raw_deflate(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush()


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "gzip by its old name": (b" X-GZIP ", gzip.compress),
    "deflate in zlib's format": (b"deflate", zlib.compress),
    "deflate, raw": (b"Deflate", raw_deflate),
    "gzip in two members": (b"gzip", lambda text: gzip.compress(text[:99]) + gzip.compress(text[99:])),
    "gzip with something behind its end": (b"gzip", lambda text: gzip.compress(text) + bytes(20)),
}


def decode(decoder: Decoder, *pieces: bytes) -> bytes:
    got = []
    for piece in pieces:
        decoder.feed(piece)
        while given := decoder.take():
            assert len(given) <= PIECE_BYTES
            got.append(given)
    return b"".join(got)


@pytest.mark.parametrize(("coding", "pack"), CODINGS.values(), ids=CODINGS.keys())
def test_what_was_packed_comes_out_in_any_cut(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TEXT)
    for pieces in ([packed], [packed[at : at + 1] for at in range(len(packed))], [packed[:100], packed[100:]]):
        decoder = Decoder(coding)
        assert decode(decoder, *pieces) == TEXT
        assert decoder.is_whole


def test_a_few_bytes_that_stand_for_many_are_given_out_piece_by_piece() -> None:
    packed = gzip.compress(bytes(50 * 2**20))
    decoder = Decoder(b"gzip")
    assert len(decode(decoder, packed)) == 50 * 2**20
    assert decoder.is_whole


def test_what_is_cut_short_is_not_whole_and_nothing_at_all_is() -> None:
    decoder = Decoder(b"gzip")
    assert decoder.is_whole
    decode(decoder, b"\x1f")
    assert not decoder.is_whole
    decode(decoder, gzip.compress(TEXT)[1:-1])
    assert not decoder.is_whole


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"compress", b"identity, gzip"])
def test_another_coding_is_refused(coding: bytes) -> None:
    with pytest.raises(BrokenOffError, match="not known"):
        Decoder(coding)


def test_what_is_not_packed_as_it_says_is_refused() -> None:
    with pytest.raises(BrokenOffError, match="broken"):
        decode(Decoder(b"gzip"), b"plain text")

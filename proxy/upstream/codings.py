"""Decodes an answer that its server compressed although nobody asked for it (RFC 9110 8.4.1).

Holds no more than what was fed and one piece of what it makes of it, however much that is.
"""

import zlib

from proxy.core.calls import BrokenOffError

PIECE_BYTES = 16 * 1024
"""Given out at once at most."""

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_METHOD = 8


class Decoder:
    """Takes the bytes of one coded answer and gives what they stand for."""

    def __init__(self, coding: bytes) -> None:
        """`coding` is the value of `content-encoding`. Raise BrokenOffError of one that is neither gzip nor deflate."""
        name = coding.strip().lower()
        if name not in (b"gzip", b"x-gzip", b"deflate"):
            raise BrokenOffError("its content coding is not known")
        self._gzip = name != b"deflate"
        self._decoder: zlib._Decompress | None = None
        self._fed = b""

    def feed(self, data: bytes) -> None:
        """Take more bytes; only once `take` has given all there was."""
        self._fed += data

    def take(self) -> bytes:
        """Return the next piece; empty where more bytes are needed, or the end has come. Raise BrokenOffError."""
        piece = b""
        while not piece and (decoder := self._current()) is not None:
            try:
                piece = decoder.decompress(self._fed, PIECE_BYTES)
            except zlib.error as error:
                raise BrokenOffError(f"its content coding is broken: {error}") from None
            self._fed = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if not decoder.eof:
                break
        return piece

    @property
    def is_whole(self) -> bool:
        """Whether the coded bytes have come to an end, or there were none."""
        return not self._fed if self._decoder is None else self._decoder.eof

    def _current(self) -> "zlib._Decompress | None":
        """Return what decodes the bytes that are there; None where they are too few, or the end has come.

        Behind the end of a gzip member there may be another one (RFC 1952 2.2); what else is there is no part of it.
        """
        if self._decoder is not None and not self._decoder.eof:
            return self._decoder
        if len(self._fed) < len(_GZIP_MAGIC):
            return None
        if self._decoder is None or (self._gzip and self._fed.startswith(_GZIP_MAGIC)):
            self._decoder = zlib.decompressobj(_GZIP if self._gzip else _window(self._fed))
            return self._decoder
        self._fed = b""
        return None


def _window(begun: bytes) -> int:
    """Return zlib's word for deflate: in zlib's format, as the RFC says, or raw, as some servers send it."""
    in_zlib = begun[0] & 0x0F == _DEFLATE_METHOD and int.from_bytes(begun[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if in_zlib else -zlib.MAX_WBITS

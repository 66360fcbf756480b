"""Says how many tokens a picture or a recording in a prompt comes to, where nobody counted them.

A picture's size is read from the first bytes of its own file; none of it is decoded.
"""

import binascii
import re
import struct
from typing import NamedTuple

LEAST_IMAGE_TOKENS, MOST_IMAGE_TOKENS = 85, 1600

_PIXELS_PER_TOKEN = 750
"""By the page https://platform.claude.com/docs/en/build-with-claude/vision; other models are of the same order."""
_WEBP_HEAD_BYTES = 30
_HEAD_CHARACTERS = 256 * 1024
"""Of base64, in which the size must stand; a photograph has up to 64 KiB of other things before it, or more."""
_DATA_URL = re.compile(r"data:[^,]{0,250};base64,", re.IGNORECASE)
_JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""Markers of a JPEG's frame, which holds its size (ITU T.81, table B.1)."""


class Costs(NamedTuple):
    """What media cost that nothing is known of, in tokens."""

    image: int = 1100
    """A picture behind an address, or of a format that is not known."""
    other: int = 1500
    """A recording, a film or a document, whatever its length."""


USUAL = Costs()


def image_tokens(url: str, costs: Costs = USUAL) -> int:
    """Return the tokens of a picture, by its size where `url` is a `data:` URL."""
    found = _DATA_URL.match(url)
    size = _size(_head(url[found.end() : found.end() + _HEAD_CHARACTERS])) if found else None
    if size is None:
        return costs.image
    width, height = size
    return min(MOST_IMAGE_TOKENS, max(LEAST_IMAGE_TOKENS, -(-width * height // _PIXELS_PER_TOKEN)))


def _head(base64: str) -> bytes:
    try:
        return binascii.a2b_base64(base64[: len(base64) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _size(head: bytes) -> tuple[int, int] | None:
    """Return width and height; None where the format is not known or the head is too short."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", head, 16)
        if head.startswith((b"GIF87a", b"GIF89a")):
            return struct.unpack_from("<HH", head, 6)
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(head)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_size(head)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    place = 2
    while head[place] == 0xFF:
        marker = head[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", head, place + 2)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", head, place + 5)
            return width, height
        place += 2 + length
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Read one of three kinds (RFC 9649 2.5 to 2.7)."""
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= _WEBP_HEAD_BYTES:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None

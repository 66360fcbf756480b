"""Reads JSON as the clients' readers do between them: Python's `json.loads` and JavaScript's `JSON.parse`.

A strict decoder reads nearly all there is. What it refuses and a client takes (a byte order mark, `NaN`, `Infinity`,
half of a surrogate pair, bytes that are no UTF-8, a number beyond 64 bits) is read by `plain`, at some hundred
nanoseconds a byte.
"""

import json
import math
import sys
from typing import Any

import msgspec

BOM = b"\xef\xbb\xbf"
MOST_PARTS = 100_000
"""Of objects, lists and members; a text with more of them is not made into values, which take 50 times its room."""
_SMALL = 64 * 1024
"""A text up to this is not counted through."""
_decode = msgspec.json.Decoder().decode
_MOST_INTEGER = 2**63 - 1
_MOST_DIGITS = 400
"""Of a number: Python refuses to convert more than 4,300, JavaScript takes all of them for Infinity."""


class UnreadableError(Exception):
    """No client reads the text."""


class TooLargeError(UnreadableError):
    """A client may read the text, but it has too many parts or is nested too deeply to be made into values here."""


def loads(text: bytes) -> Any:
    """Return the value of a text. Raise UnreadableError, TooLargeError."""
    if len(text) > _SMALL and is_crowded(text):
        raise TooLargeError
    try:
        return _decode(text)
    except (ValueError, RecursionError):
        return _decode(plain(text))


def plain(text: bytes) -> bytes:
    """Return the same value as strict JSON in UTF-8.

    A number out of range becomes the nearest one, `NaN` null, half of a surrogate pair another character.

    Raise UnreadableError, TooLargeError.
    """
    try:
        value = json.loads(
            text.decode("utf-8-sig", "replace"), parse_constant=_finite, parse_int=_integer, parse_float=_finite
        )
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except RecursionError:
        raise TooLargeError from None
    except ValueError:
        raise UnreadableError from None


def in_utf8(text: bytes) -> bytes:
    """Return a JSON object's text in UTF-8; Python's readers take UTF-16 and UTF-32 as well (RFC 4627 3)."""
    if 0 not in text[:4]:
        return text
    try:
        decoded = text.decode(json.detect_encoding(text), "surrogatepass")
    except UnicodeDecodeError:
        return text
    is_object = decoded.lstrip("\ufeff \t\r\n").startswith("{")
    return decoded.encode("utf-8", "surrogatepass") if is_object else text


def is_crowded(text: bytes) -> bool:
    """Say whether a text has more parts than are worth reading."""
    return text.count(b"{") + text.count(b"[") + text.count(b",") > MOST_PARTS


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        return -_MOST_INTEGER if digits.startswith("-") else _MOST_INTEGER
    return min(max(int(digits), -_MOST_INTEGER), _MOST_INTEGER)


def _finite(text: str) -> float | None:
    value = float(text)
    return None if math.isnan(value) else min(max(value, -sys.float_info.max), sys.float_info.max)

"""Bytes that came before, and what differs from them in one place."""

from collections.abc import Sequence

from hypothesis import strategies as st


def altered(draw: st.DrawFn, data: bytes, pieces: Sequence[bytes]) -> bytes:
    """Return `data`, or what is left where a piece goes in, takes a byte's place, or the rest is cut off."""
    at = draw(st.integers(0, len(data)))
    piece = draw(st.sampled_from(pieces))
    match draw(st.integers(0, 4)):
        case 0:
            return data[:at] + piece + data[at:]
        case 1:
            return data[:at] + piece + data[at + 1 :]
        case 2:
            return data[:at] or data
    return data

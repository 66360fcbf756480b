"""Judges a key that a lab made itself (contract 2.3).

Never puts any part of the key into a message.
"""

import math
from collections import Counter

from control.core.refusals import InvalidError

MIN_ENTROPY_BITS = 3.0
"""Shannon entropy a character."""


def check(key: str) -> None:
    """Raise InvalidError where the key's characters repeat too much to be random."""
    if entropy_bits(key) < MIN_ENTROPY_BITS:
        raise InvalidError(
            f"key: its Shannon entropy must be at least {MIN_ENTROPY_BITS} bits a character",
            param="key",
            code="key_too_weak",
        )


def entropy_bits(text: str) -> float:
    """Return the Shannon entropy of the characters of a text that is not empty, in bits a character."""
    return math.fsum(-count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())

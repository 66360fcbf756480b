"""Judges a key that a lab made itself (contract 2.3).

No message holds a part of the key.
"""

import math
from collections import Counter

from control.core.refusals import InvalidError
from schemas.config import KEY_PREFIX_LENGTH

MIN_ENTROPY_BITS = 3.0
"""Shannon entropy a character, of the whole key."""

MIN_SECRET_ENTROPY_BITS = 2.5
"""The same of what follows the prefix: the prefix is public."""


def check(key: str) -> None:
    """Raise InvalidError where the key's characters, or those of its secret part, repeat too much to be random."""
    if entropy_bits(key) < MIN_ENTROPY_BITS:
        raise _too_weak(f"its Shannon entropy must be at least {MIN_ENTROPY_BITS} bits a character")
    if entropy_bits(key[KEY_PREFIX_LENGTH:]) < MIN_SECRET_ENTROPY_BITS:
        raise _too_weak(
            f"the Shannon entropy of what follows its first {KEY_PREFIX_LENGTH} characters, which are public, "
            f"must be at least {MIN_SECRET_ENTROPY_BITS} bits a character"
        )


def _too_weak(allowed: str) -> InvalidError:
    return InvalidError(f"key: {allowed}", param="key", code="key_too_weak")


def entropy_bits(text: str) -> float:
    """Return the Shannon entropy of the characters of a text that is not empty, in bits a character."""
    return math.fsum(-count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())

"""The epoch that every version begins with, so that versions grow also where a database was restored (counting 9).

A version is ``epoch * 2**40 + count``: one integer, so whoever compares versions need not know of epochs. JavaScript's
numbers are exact up to epoch 8191.
"""

from typing import Final

COUNT_BITS: Final = 40
"""What a count may have: at a million changes a second it lasts for 12 days, at a thousand for 34 years."""


def of(version: int) -> int:
    """Return the epoch of a version."""
    return version >> COUNT_BITS


def start(version: int) -> int:
    """Return the lowest version of the epoch that `version` is of: what a count of changes is added to."""
    return of(version) << COUNT_BITS


def next_start(*versions: int) -> int:
    """Return the lowest version of the epoch behind those of all `versions`."""
    return (max(map(of, versions)) + 1) << COUNT_BITS

"""Text of others on its way to a terminal, which would obey some of it: colours, cursor, title, clipboard."""

import unicodedata

_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, of formats that reorder or hide a line, of halves of a pair, of line ends."""


def safe(text: str) -> str:
    """Return one line of text with what a terminal obeys, or shows as nothing, escaped as Python writes it."""
    return "".join(_escaped(letter) if unicodedata.category(letter) in _OBEYED else letter for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")

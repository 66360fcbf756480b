"""Text of others on its way to a spreadsheet, which would calculate some of it."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe(text: str) -> str:
    """Return a cell of a CSV file that no spreadsheet calculates: one that begins a formula gets an apostrophe before.

    As OWASP's page on CSV injection says. Numbers of ours are no text and stay as they are.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text

"""Says which version runs, and names it to those we call."""

from functools import cache
from importlib import metadata

_DISTRIBUTION = "tollgate-gateway"


@cache
def current() -> str:
    """Return the version of the installed product, as `tollgate --version` prints it."""
    return metadata.version(_DISTRIBUTION)


def user_agent(name: str) -> str:
    """Return the `User-Agent` of a part: its name and the version."""
    return f"{name}/{current()}"

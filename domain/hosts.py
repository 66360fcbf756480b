"""What a host name is to us: under which name a request was sent (contract 6)."""

import re

MAX_LENGTH = 253
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_PORT = re.compile(r":[0-9]*$")


def named(host: str) -> str:
    """Return a `Host` header's name: in lower case, without its port and a dot at its end."""
    return _PORT.sub("", host.strip().lower()).removesuffix(".")


def is_name(host: str) -> bool:
    """Tell whether it can be a workspace's: a domain name of two labels at least, as `named` returns it."""
    return len(host) <= MAX_LENGTH and _NAME.fullmatch(host) is not None

"""Judges the form of an upstream's or receiver's URL when it is set (contract 2.1, section 5)."""

from urllib.parse import urlsplit

from runtime import ssrf_guard

MAX_URL_LENGTH = 2048


def problem(url: str, *, allow_private: bool, allow_query: bool) -> str | None:
    """Say what is wrong with the form of a URL; None where nothing is. Private places may have ports and http."""
    if len(url) > MAX_URL_LENGTH:
        return f"the URL must hold at most {MAX_URL_LENGTH} characters"
    try:
        place = ssrf_guard.parse_url(url, allow_private=allow_private)
    except ssrf_guard.AddressRefusedError as error:
        return str(error)
    if "#" in url or ("?" in url and not allow_query):
        return "the URL must not hold a fragment" if allow_query else "the URL must not hold a query or a fragment"
    if allow_private:
        return None
    if urlsplit(url).port is not None:
        return "the URL must not name a port"
    name = place.host.rstrip(".")
    return "the host must be public" if name == "localhost" or name.endswith(".localhost") else None

"""Which places on the network may be called: the address check that webhooks and upstreams share (contract 5, SSRF).

It connects to nothing. A host is refused where one of its addresses is.

Rules, unless private places are allowed:

- https alone, on its own port. No user name in a URL, and no host that reads as an address without being written as one
  (decimal, octal, hex, short forms, zone ids): those also where private places are allowed.
- Every address that a host resolves to must be public: none of IANA's special ranges. An address that carries an IPv4
  address (v4-mapped, NAT64) is judged by that one; 6to4, Teredo and ISATAP, whose relays are anybody's, are refused.
- Whoever connects must connect to an address that `resolve` gave, not to the name: it may resolve anew.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Return a host's addresses as text. Raise OSError."""

_PORTS = {"https": 443, "http": 80}
_V4_REFUSED = {
    IPv4Network(text): name
    for text, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT relays"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
}
_V6_REFUSED = {
    IPv6Network(text): name
    for text, name in (
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
    )
}
_V6_PUBLIC = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = 0x5EFE
_FORBIDDEN_IN_URL = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_HOST = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~"
_ACE = "xn--"
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class AddressRefusedError(Exception):
    """A URL, host or address may not be called; the message says why, and `detail` what the operator alone may read."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail or message


class ParsedUrl(NamedTuple):
    """Where a URL leads. `host` is a name or an address without brackets; `target` the path with its query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Return the value of the Host header: without the scheme's own port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(url: str, *, allow_private: bool) -> ParsedUrl:
    """Take a URL apart and check all of it that needs no look-up. Raise RefusedError."""
    if _FORBIDDEN_IN_URL.search(url):
        raise AddressRefusedError("the URL must not contain spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefusedError(f"the URL cannot be read: {error}") from None
    if parts.scheme not in _PORTS or (parts.scheme == "http" and not allow_private):
        raise AddressRefusedError(
            "the URL must begin with https:// or http://"
            if allow_private
            else "the URL must begin with https:// (http, ports and private places are allowed by"
            " TOLLGATE_ALLOW_PRIVATE_UPSTREAMS and TOLLGATE_ALLOW_PRIVATE_RECEIVERS)"
        )
    if parts.username is not None or parts.password is not None:
        raise AddressRefusedError("the URL must not carry a user name or password")
    if port is not None and not (allow_private and port > 0) and port != _PORTS[parts.scheme]:
        raise AddressRefusedError("the URL must not name a port")
    host = parts.hostname or ""
    if parts.netloc.lower() not in _authorities(host, port):
        raise AddressRefusedError("the URL's host cannot be read")
    literal = check_host(host)
    reason = check_address(literal) if literal and not allow_private else None
    if reason:
        raise AddressRefusedError(reason)
    target = quote(parts.path or "/", safe=_SAFE_IN_PATH)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE_IN_PATH + "?[]")
    return ParsedUrl(parts.scheme, host, port or _PORTS[parts.scheme], target)


def _authorities(host: str, port: int | None) -> tuple[str, ...]:
    """Return what may stand between the slashes: text around an address in brackets would be dropped silently."""
    written = f"[{host}]" if ":" in host else host
    return (written, f"{written}:") if port is None else (f"{written}:{port}",)


def check_host(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that `host` is written as, None for a name. Raise RefusedError for what is neither."""
    if "%" in host:
        raise AddressRefusedError("the host must not carry a zone id")
    try:
        return ip_address(host)
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise AddressRefusedError("the host must be a name in its ASCII form, or an address")
    if any(label.startswith(_ACE) and not _decodes(label) for label in host.lower().split(".")):
        raise AddressRefusedError("the host holds a label that begins with xn-- and is no Punycode (RFC 3492)")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise AddressRefusedError("the host must not be an address in decimal, octal, hex or short form")
    return None


def check_address(address: str | IPv4Address | IPv6Address) -> str | None:
    """Say why an address is not public; None where it is."""
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return f"{address} is not an address"
    name = _refused_v4(address) if isinstance(address, IPv4Address) else _refused_v6(address)
    return f"{address} is not a public address ({name})" if name else None


async def resolve(host: str, port: int, *, allow_private: bool, resolver: Resolver | None = None) -> list[str]:
    """Return the addresses of `host` that may be connected to, in the resolver's order, each once.

    Raise RefusedError where the host or any one of its addresses is refused, OSError where the look-up fails. Of a name
    the refusal does not say which address: labs read it, who would have the operator's private names looked up so.
    """
    literal = check_host(host)
    found = [str(literal)] if literal else list(dict.fromkeys(await (resolver or look_up)(host, port)))
    if not found:
        raise OSError(f"{host} has no address")
    for address in found:
        reason = None if allow_private else check_address(address)
        if reason:
            if address == host:
                raise AddressRefusedError(reason)
            raise AddressRefusedError(f"{host}: has an address that is not public", detail=f"{host}: {reason}")
    return found


async def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raise OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _decodes(label: str) -> bool:
    """Tell whether a label is one that Unicode can be read from; which Unicode a name may hold is the registries'."""
    try:
        return bool(label.removeprefix(_ACE).encode("ascii").decode("punycode"))
    except UnicodeError:
        return False


def _refused_v4(address: IPv4Address) -> str | None:
    return next((name for network, name in _V4_REFUSED.items() if address in network), None)


def _refused_v6(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "zone id"
    if address.ipv4_mapped is not None:
        return _refused_v4(address.ipv4_mapped)
    if address in _NAT64:
        return _refused_v4(IPv4Address(int(address) & 0xFFFF_FFFF))
    if (int(address) >> 32) & 0xFDFF_FFFF == _ISATAP:  # RFC 5214: the bit that is left out says "globally unique"
        return "ISATAP"
    if address not in _V6_PUBLIC:
        return "not global unicast"
    return next((name for network, name in _V6_REFUSED.items() if address in network), None)

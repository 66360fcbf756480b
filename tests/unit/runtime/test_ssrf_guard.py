"""The address check: no special range, in whatever form it is written or resolved (contract 5)."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from runtime import ssrf_guard

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.1.2",
    "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1",
    "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1",
    "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "2a00:1450::1%2", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:8.8.8.8", "64:ff9b::ffff:127.0.0.1",
    "::ffff:168.63.129.16", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:30::1", "100.100.100.200", "192.0.0.170",
    "169.254.170.2", "4000::1", "not an address", "", "127.0.0.1\n", "\uff18.8.8.8",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "168.63.129.15", "2600::1", "2a00:1450:4001:81b::200e", "2001:200::1", "2001:4860:4860::8888",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip
REFUSED_URLS = [
    "http://lab.example/", "ftp://lab.example/", "//lab.example/", "lab.example", "", "https://", "https:///path",
    "https://lab.example:8443/", "https://lab.example:0/", "https://lab.example:99999/", "https://lab.example:x/",
    "https://user@lab.example/", "https://user:pass@lab.example/", "https://@lab.example/",
    "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "https://[::1",
    "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://127.0.0.1./", "https://8.8.8/", "https://134744072/", "https://010.8.8.8/", "https://1.2.3.4.5/",
    "https://lab.0x7f/", "https://0x/",
    "https://läb.example/", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020\u30020\u30021/", "https://lab..example/",
    "https://.lab.example/", f"https://{'a' * 64}.example/", f"https://{'a.' * 130}example/", "https://lab exa/",
    "https://lab.example\\@127.0.0.1/", "https://lab.example/\r\nHost: x", "https://lab\t.example/", " https://lab.ex",
    "https://lab.example/\ud800", "https://lab.example%2f@127.0.0.1/", "https://%31%32%37.0.0.1/", "https://lab!/",
    "https://[0:0:0:0:0:ffff:7f00:1]/", "https://[127.0.0.1]/", "https://[v1.fe80::a]/", "https://0/",
    "https:/127.0.0.1/", "https:127.0.0.1", "https:\\\\127.0.0.1/", "https://127.0.0.1\\@lab.example/", "https://0b1111111.0.0.1/",
    "https://3232235777/", "https://0300.0250.1.1/", "https://127.0.0.0x1/", "https://lab.example;@127.0.0.1/",
    "https://1.1.1.1.\u200b/", "https://169.254.169.254/latest/meta-data", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_addresses_are_refused(address: str) -> None:
    assert ssrf_guard.check_address(address) is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_not(address: str) -> None:
    assert ssrf_guard.check_address(address) is None


def test_the_reason_names_address_and_range() -> None:
    assert ssrf_guard.check_address("169.254.169.254") == "169.254.169.254 is not a public address (link-local)"


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_urls_that_lead_elsewhere_than_they_say_are_refused(url: str) -> None:
    with pytest.raises(ssrf_guard.AddressRefusedError):
        ssrf_guard.parse_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://lab.example", ("https", "lab.example", 443, "/")),
        ("https://LAB.example:443/Hook?x=1&y=%20#part", ("https", "lab.example", 443, "/Hook?x=1&y=%20")),
        ("HTTPS://xn--lb-via.example/ä", ("https", "xn--lb-via.example", 443, "/%C3%A4")),
        ("https://8.8.8.8/", ("https", "8.8.8.8", 443, "/")),
        ("https://[2600::1]/", ("https", "2600::1", 443, "/")),
        ("https://lab.example./", ("https", "lab.example.", 443, "/")),
        ("https://1password.example/?a=[b]", ("https", "1password.example", 443, "/?a=[b]")),
    ],
)
def test_public_urls_are_taken_apart(url: str, place: tuple[str, str, int, str]) -> None:
    assert ssrf_guard.parse_url(url, allow_private=False) == place


def test_where_private_places_are_allowed_so_are_http_and_ports() -> None:
    assert ssrf_guard.parse_url("http://127.0.0.1:8080/x", allow_private=True) == ("http", "127.0.0.1", 8080, "/x")
    assert ssrf_guard.parse_url("http://receiver/", allow_private=True).port == 80
    for url in ("http://127.1/", "https://2130706433/", "http://user@127.0.0.1/", "http://[fe80::1%25lo]/", "ftp://a/"):
        with pytest.raises(ssrf_guard.AddressRefusedError):
            ssrf_guard.parse_url(url, allow_private=True)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://lab.example/", "lab.example"),
        ("http://lab.example/", "lab.example"),
        ("http://lab.example:443/", "lab.example:443"),
        ("https://[::1]:8443/", "[::1]:8443"),
        ("https://[::1]/", "[::1]"),
    ],
)
def test_the_authority_names_a_port_that_is_not_the_schemes_own(url: str, authority: str) -> None:
    assert ssrf_guard.parse_url(url, allow_private=True).authority == authority


class Resolver:
    """Return fixed addresses; remembers whether it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.addresses


async def test_every_address_of_a_host_must_be_public() -> None:
    assert await ssrf_guard.resolve(
        "lab.example", 443, allow_private=False, resolver=Resolver("8.8.8.8", "2600::1")
    ) == [
        "8.8.8.8",
        "2600::1",
    ]
    for bad in NOT_PUBLIC:
        with pytest.raises(ssrf_guard.AddressRefusedError, match=r"lab\.example: "):
            await ssrf_guard.resolve("lab.example", 443, allow_private=False, resolver=Resolver("8.8.8.8", bad))


async def test_an_address_is_not_looked_up() -> None:
    resolver = Resolver("8.8.8.8")
    assert await ssrf_guard.resolve("1.1.1.1", 443, allow_private=False, resolver=resolver) == ["1.1.1.1"]
    with pytest.raises(ssrf_guard.AddressRefusedError, match=r"^127\.0\.0\.1 is not a public address \(loopback\)$"):
        await ssrf_guard.resolve("127.0.0.1", 443, allow_private=False, resolver=resolver)
    assert resolver.asked == []


async def test_a_host_without_addresses_is_a_failed_look_up() -> None:
    with pytest.raises(OSError, match=r"lab\.example has no address"):
        await ssrf_guard.resolve("lab.example", 443, allow_private=False, resolver=Resolver())


async def test_private_addresses_pass_where_they_are_allowed_but_odd_forms_never() -> None:
    resolver = Resolver("10.0.0.1", "10.0.0.1")
    assert await ssrf_guard.resolve("receiver", 80, allow_private=True, resolver=resolver) == ["10.0.0.1"]
    for host in ("0x7f.1", "127.1", "fe80::1%lo"):
        with pytest.raises(ssrf_guard.AddressRefusedError):
            await ssrf_guard.resolve(host, 80, allow_private=True, resolver=resolver)


async def test_the_systems_resolver_answers_with_plain_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: int, *, type: int) -> list[tuple[object, ...]]:  # noqa: A002 (the loop's name)
        assert (host, port, type) == ("lab.example", 443, socket.SOCK_STREAM)
        return [(2, 1, 6, "", ("8.8.8.8", 443)), (10, 1, 6, "", ("2600::1", 443, 0, 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    assert await ssrf_guard.look_up("lab.example", 443) == ["8.8.8.8", "2600::1"]


@pytest.mark.parametrize(
    "url",
    [
        "https://[2606:4700::1111]foo/v1",
        "https://foo[2606:4700::1111]/v1",
        "https://[2606:4700::1111].127.0.0.1/v1",
        "https://[2606:4700::1111]foo:443/v1",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
def test_text_around_an_address_in_brackets_is_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(ssrf_guard.AddressRefusedError):
        ssrf_guard.parse_url(url, allow_private=allow_private)


@pytest.mark.parametrize(
    "host", ["xn--", "xn--.example", "XN--.example", "api.xn--99999999.example", "xn--a-.xn--0.example"]
)
def test_a_label_that_claims_to_be_punycode_must_be(host: str) -> None:
    """A client of TLS or of the name service would raise what nobody expects."""
    with pytest.raises(ssrf_guard.AddressRefusedError, match="xn--"):
        ssrf_guard.parse_url(f"https://{host}/v1", allow_private=True)


@pytest.mark.parametrize("host", ["xn--rksmrgs-5wao1o.example", "xn--fiqs8s", "XN--MXACD.example", "axn--.example"])
def test_names_in_punycode_pass(host: str) -> None:
    assert ssrf_guard.parse_url(f"https://{host}/v1", allow_private=False).host == host.lower()

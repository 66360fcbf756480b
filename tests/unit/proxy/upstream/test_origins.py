"""Upstreams' places are forgotten when nobody uses them, and one lab's refuse no other's."""

from proxy.core.calls import Failure
from proxy.upstream import origins
from proxy.upstream.bounds import read_buffer
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.origins import Origins, UrlParts
from runtime.deadlines import Deadlines
from runtime.lookups import Lookups
from runtime.turns import Turns


def target(places: Origins, number: int) -> UrlParts:
    found = places.target(f"https://host-{number}.example/v1", by_operator=False)
    assert isinstance(found, UrlParts)
    return found


async def test_a_new_url_each_time_leaves_no_more_than_a_bound() -> None:
    places = Origins(allow_private=False, look_up_timeout_s=1, lookups=Lookups(), monotonic=lambda: 0.0)
    for number in range(5000):
        target(places, number)
        assert len(places) <= origins.UNUSED_ORIGINS
    assert isinstance(places.target("http://10.0.0.1/", by_operator=False), Failure)


async def test_places_in_use_are_kept_and_a_new_one_still_finds_room() -> None:
    places = Origins(allow_private=False, look_up_timeout_s=1, lookups=Lookups(), monotonic=lambda: 0.0)
    used = []
    for number in range(3 * origins.UNUSED_ORIGINS):
        origin = target(places, number).origin
        origin.connections.add(UpstreamConnection(origin, "192.0.2.1", Deadlines(), read_buffer(), 1, turns=Turns()))
        used.append(origin)
    assert target(places, 0).origin is used[0]
    assert target(places, 10**6).origin not in used
    for origin in used:
        origin.connections.clear()
    for number in range(10**7, 10**7 + 4 * origins.UNUSED_ORIGINS):
        target(places, number)
    assert len(places) <= 4 * origins.UNUSED_ORIGINS

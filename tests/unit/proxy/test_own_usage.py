"""What a key is told of its limits: by `GET /v1/usage`, and by the headers of each answer (contract 2.5, 3)."""

import json

import pytest

from proxy.limits.days import DayLimit
from proxy.own_usage import OwnUsage
from schemas.limits import LimitType, UsageLimitUnit
from tests.unit.proxy import kit
from tests.unit.proxy.bodies import ASKED, DONE, HELLO, MEAN, NO_USAGE, PLAIN, STREAMED
from tests.unit.proxy.kit import House
from tests.unit.proxy.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_key_sees_its_limits_what_it_used_and_when_that_resets_and_no_other_group(house: House) -> None:
    own = DayLimit(LimitType.REQUEST, 3, kit.GROUP, kit.GROUP)
    above = DayLimit(LimitType.TOKEN, 100, kit.PARENT, kit.PARENT, over_all=True, unit=UsageLimitUnit.MONTH)
    routes = {slug: kit.route(slug=slug, day_limits=(own, above)) for slug in (kit.SLUG, "lab/b")}
    house.directory.routes = {(kit.GROUP, slug): route for slug, route in routes.items()}
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    usage = OwnUsage(house.admissions, house.directory, house.days, lambda: kit.NOW)
    reply = usage.answer(b"Api-Key " + kit.TEXT_KEY)
    told = json.loads(reply.body)
    day = {"type": "REQUEST", "unit": "DAY", "threshold": 3, "source": "own", "reset_at": "2025-03-02T00:00:00.000Z"}
    month = {"type": "TOKEN", "unit": "MONTH", "threshold": 100, "source": "above"}
    assert (reply.status, told["object"]) == (200, "usage")
    assert told["usage"] == {
        kit.SLUG: [day | {"current_usage": 1}],
        "lab/b": [day | {"current_usage": 0}],
        "*": [month | {"current_usage": 7, "reset_at": "2025-04-01T00:00:00.000Z"}],
    }
    assert {limit["source"] for limit in told["rate_limits"][kit.SLUG]} == {"own", "above"}
    assert kit.PARENT.encode() not in reply.body
    assert usage.answer(b"Api-Key nothing").status == 401


@pytest.mark.parametrize(
    ("threshold", "used", "status", "left"),
    [
        (600, (5, 2), 200, 593),
        (100, (5, 2), 200, 93),
        (600, (5, 5000), 200, 0),
        (6, (5, 2), 200, 0),
        (8, (5, 2), 200, 1),
        (100, (0, 0), 500, 100),
    ],
)
@in_virtual_time
async def test_a_whole_answer_shows_the_tokens_that_are_left_after_it(
    house: House, threshold: int, used: tuple[int, int], status: int, left: int
) -> None:
    """Not those that its estimate held: 0 where the next call passes, or room that is not there."""
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(kit.rate(LimitType.TOKEN, threshold))
    usage = json.dumps({"prompt_tokens": used[0], "completion_tokens": used[1]}).encode()
    house.upstream.answers(NO_USAGE[:-1] + b',"usage":' + usage + b"}", status=status)
    client = await house.serve(house.client(ASKED))
    assert client.status == status
    assert client.header(b"x-ratelimit-remaining-tokens") == b"%d" % left
    house.upstream.answers(PLAIN)
    again = await house.serve(house.client(ASKED))
    assert again.status == (200 if left else 429)


@in_virtual_time
async def test_a_stream_shows_what_its_estimate_leaves(house: House) -> None:
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(kit.rate(LimitType.TOKEN, 10_000))
    house.upstream.streams(HELLO, DONE)
    client = await house.serve(house.client(STREAMED))
    reserved = -(-len(STREAMED) // 4) + MEAN
    assert client.header(b"x-ratelimit-remaining-tokens") == b"%d" % (10_000 - reserved)

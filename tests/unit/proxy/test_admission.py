"""Who is let in, who is not, and that a refusal takes nothing (contract 3, 3.1)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from proxy.call import Call
from proxy.core.calls import Unserved
from proxy.core.replies import Reply
from proxy.limits.days import DayLimit
from schemas.limits import LimitType, RateLimitUnit
from tests.unit.proxy import fakes, kit
from tests.unit.proxy.bodies import (
    ASKED,
    ESTIMATED,
    MEAN,
    NO_USAGE,
    PLAIN,
    RESERVED,
    error_of,
)
from tests.unit.proxy.kit import House
from tests.unit.proxy.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_unknown_key_is_refused_before_its_body_is_read(house: House) -> None:
    client = await house.serve(house.client(ASKED, authorization=b"Api-Key " + kit.TEXT_KEY[:-1] + b"x"))
    assert client.status == 401
    assert error_of(client.got)["code"] == "invalid_api_key"
    assert client.bodies_read == 0


@in_virtual_time
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"disabled": True}, "key_disabled"),
        ({"expires_at": kit.NOW}, "key_expired"),
        ({"expires_at": kit.NOW, "suspended": True}, "key_expired"),
    ],
)
async def test_a_key_that_ended_or_is_disabled(house: House, changes: dict[str, Any], code: str) -> None:
    house.directory.keys = {kit.key().prefix: kit.key(**changes)}
    client = await house.serve(house.client(ASKED))
    assert (client.status, error_of(client.got)["code"]) == (401, code)
    assert client.bodies_read == 0
    wrong = await house.serve(house.client(ASKED, authorization=b"Api-Key " + kit.TEXT_KEY[:-1] + b"x"))
    assert error_of(wrong.got)["code"] == "invalid_api_key"


@in_virtual_time
async def test_a_key_works_until_its_end(house: House) -> None:
    house.directory.keys = {kit.key().prefix: kit.key(expires_at=kit.NOW + timedelta(days=1))}
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200


@in_virtual_time
async def test_a_suspended_workspace(house: House) -> None:
    house.directory.keys = {kit.key().prefix: kit.key(suspended=True)}
    client = await house.serve(house.client(ASKED))
    assert (client.status, error_of(client.got)["code"]) == (403, "workspace_suspended")


@in_virtual_time
async def test_a_slug_the_key_may_not_call(house: House) -> None:
    client = await house.serve(house.client(b'{"model":"lab/other"}'))
    assert (client.status, error_of(client.got)["code"]) == (404, "model_not_found")
    assert "lab/other" in error_of(client.got)["message"]


@in_virtual_time
async def test_a_slug_that_leads_nowhere_takes_nothing(house: House) -> None:
    house.directory.routes[kit.GROUP, kit.SLUG] = Unserved.CREDENTIAL
    client = await house.serve(house.client(ASKED))
    error = error_of(client.got)
    assert (client.status, error["code"], error["param"]) == (502, "upstream_credential", "model")
    assert kit.SLUG in error["message"]
    assert client.header(b"x-should-retry") == b"false"
    assert not house.upstream.requests
    house.assert_all_given_back()


@in_virtual_time
async def test_a_bad_body(house: House) -> None:
    client = await house.serve(house.client(b'{"model":"lab/model","stream":1}'))
    assert (client.status, error_of(client.got)["param"]) == (400, "stream")


@in_virtual_time
async def test_a_used_up_day(house: House) -> None:
    limit = DayLimit(LimitType.REQUEST, 1, kit.PARENT, kit.GROUP)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(day_limits=(limit,))
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200
    client = await house.serve(house.client(ASKED))
    assert client.status == 429
    error = error_of(client.got)
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    for named in ("lab/model", "REQUEST", "DAY", "1", "a group above", "resets at 2025-03-02T00:00:00.000Z"):
        assert named in error["message"]
    assert kit.PARENT not in error["message"]
    midnight = kit.NOW.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert client.header(b"retry-after") == b"%d" % -((kit.NOW - midnight) // timedelta(seconds=1))
    assert client.header(b"x-should-retry") == b"false"
    assert len(house.upstream.requests) == 1
    house.assert_all_given_back()


@in_virtual_time
@pytest.mark.parametrize(
    ("type_", "threshold", "calls"),
    [(LimitType.INPUT_TOKEN, 5, 1), (LimitType.OUTPUT_TOKEN, 3, 2)],
)
async def test_limits_of_input_and_output_tokens_count_their_part_alone(
    house: House, type_: LimitType, threshold: int, calls: int
) -> None:
    day = DayLimit(type_, threshold, kit.GROUP, kit.GROUP)
    for found in (kit.independent(day_limits=(day,)), kit.independent(kit.rate(type_, threshold))):
        house.directory.routes[kit.GROUP, kit.SLUG] = found
        for number in range(calls):
            house.upstream.answers(PLAIN)
            assert (await house.serve(house.client(ASKED))).status == 200, number
        client = await house.serve(house.client(ASKED))
        assert (client.status, f"{threshold} {type_.value} per " in error_of(client.got)["message"]) == (429, True)
        if found.rates.limits:
            assert client.header(b"x-ratelimit-remaining-tokens") == b"0"


@in_virtual_time
async def test_a_limit_over_all_slugs_is_named_by_a_star(house: House) -> None:
    day = DayLimit(LimitType.REQUEST, 1, kit.PARENT, kit.GROUP, over_all=True)
    house.directory.routes[kit.GROUP, "lab/b"] = kit.independent(slug="lab/b")
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(day_limits=(day,))
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED.replace(kit.SLUG.encode(), b"lab/b")))).status == 200
    client = await house.serve(house.client(ASKED))
    assert client.status == 429
    assert "1 REQUEST per DAY for *, set by a group above" in error_of(client.got)["message"]
    rate = replace(kit.rate(LimitType.REQUEST, 0), over_all=True)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(rate)
    refused = await house.serve(house.client(ASKED))
    assert " per MINUTE for *," in error_of(refused.got)["message"]


@in_virtual_time
async def test_as_many_in_flight_as_may_be(house: House) -> None:
    limit = kit.rate(LimitType.REQUEST, 1, RateLimitUnit.CONCURRENT)
    day = DayLimit(LimitType.REQUEST, 3, kit.GROUP, kit.GROUP)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(concurrent=(limit,), day_limits=(day,))
    first = await house.admissions.admit(kit.key(), ASKED)
    assert isinstance(first, Call)
    client = await house.serve(house.client(ASKED))
    assert len(house.admissions.places) == 1
    error = error_of(client.got)
    assert (client.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    for named in ("lab/model", "1 REQUEST CONCURRENT", "a group above"):
        assert named in error["message"]
    assert (client.header(b"retry-after"), client.header(b"retry-after-ms")) == (b"1", b"1000")
    house.admissions.release(first)
    for _ in range(3):  # a refusal takes nothing from the day
        house.upstream.answers(PLAIN)
        assert (await house.serve(house.client(ASKED))).status == 200


@in_virtual_time
async def test_a_rate_that_refuses_gives_the_place_in_flight_back(house: House) -> None:
    nothing = kit.rates(kit.rate(LimitType.REQUEST, 0))
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(rates=nothing, concurrent=kit.ROOM_IN_FLIGHT)
    assert (await house.serve(house.client(ASKED))).status == 429
    house.assert_all_given_back()


@in_virtual_time
async def test_a_request_that_failed_gives_its_place_in_the_day_back(house: House) -> None:
    limit = DayLimit(LimitType.REQUEST, 1, kit.GROUP, kit.GROUP)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(day_limits=(limit,))
    house.upstream.answers(b"oops", status=500)
    assert (await house.serve(house.client(ASKED))).status == 500
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200


@in_virtual_time
async def test_a_rate_limit_takes_no_place_in_the_day(house: House) -> None:
    limit = kit.rate(LimitType.TOKEN, 7, RateLimitUnit.SECOND)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.independent(limit)
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200
    client = await house.serve(house.client(ASKED))
    assert client.status == 429
    error = error_of(client.got)
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    for named in ("lab/model", "TOKEN", "SECOND", "7", "a group above"):
        assert named in error["message"]
    assert (client.header(b"retry-after"), client.header(b"retry-after-ms")) == (b"2", b"1050")
    assert client.header(b"x-ratelimit-remaining-tokens") == b"0"
    assert client.header(b"x-ratelimit-reset-tokens") == b"2s"
    assert len(house.upstream.requests) == 1
    house.assert_all_given_back()


@in_virtual_time
async def test_windows_that_fail_take_no_place_in_the_day(house: House) -> None:
    house.windows.failure = RuntimeError("no windows")
    assert (await house.serve(house.client(ASKED))).status == 500
    house.assert_all_given_back()


@in_virtual_time
async def test_no_free_slot(house: House) -> None:
    while len(house.slots.open) < 8:
        house.slots.open_slot(b"{}")
    client = await house.serve(house.client(ASKED))
    assert (client.status, client.header(b"retry-after"), client.bodies_read) == (503, b"1", 0)
    assert "in flight" in error_of(client.got)["message"]
    unknown = await house.serve(house.client(ASKED, b"Api-Key " + b"x" * 40))
    assert unknown.status == 401, "who is unknown is told so first"
    house.slots.open.clear()
    house.assert_all_given_back()


@in_virtual_time
async def test_the_last_slot_is_taken_while_the_body_comes(house: House) -> None:
    class Slow(fakes.FakeClient):
        async def body(self, workspace_id: str) -> bytes | Reply:
            while not house.slots.is_full:
                house.slots.open_slot(b"{}")
            return await super().body(workspace_id)

    client = await house.serve(Slow(house.journal, ASKED, b"Api-Key " + kit.TEXT_KEY))
    assert (client.status, client.header(b"retry-after")) == (503, b"1")
    house.slots.open.clear()
    house.assert_all_given_back()


@in_virtual_time
async def test_what_answers_had_is_what_the_next_one_is_expected_to_have(house: House) -> None:
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    await house.serve(house.client(b'{"model":"lab/model"'))  # a bad body changes nothing
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    assert [place.reserved[1] for _, place in house.windows.taken] == [RESERVED + MEAN, RESERVED + 2]


@in_virtual_time
async def test_an_estimated_count_does_not_teach_the_mean(house: House) -> None:
    house.upstream.answers(NO_USAGE)
    await house.serve(house.client(ASKED))
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    assert house.sink.drafts[0].usage_source is ESTIMATED
    assert [place.reserved[1] for _, place in house.windows.taken] == [RESERVED + MEAN, RESERVED + MEAN]


@in_virtual_time
async def test_a_request_takes_its_place_in_every_limit_of_its_route(house: House) -> None:
    house.upstream.answers(PLAIN)
    await house.serve(house.client(ASKED))
    ((chain, place),) = house.windows.taken
    assert chain == house.directory.routes[kit.GROUP, kit.SLUG].rates  # type: ignore[union-attr]
    assert (place.slug, place.limits) == (kit.SLUG, kit.ROOMY)
    house.assert_all_given_back()


@in_virtual_time
async def test_a_day_that_its_parents_counter_has_used_up(house: House) -> None:
    limit = DayLimit(LimitType.REQUEST, 1, kit.PARENT, kit.PARENT)
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(day_limits=(limit,))
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(ASKED))).status == 200
    assert (await house.serve(house.client(ASKED))).status == 429
    house.assert_all_given_back()


def test_what_a_key_may_call(house: House) -> None:
    listed = house.admissions.models(b"Api-Key " + kit.TEXT_KEY)
    assert not isinstance(listed, Reply)
    assert [model.slug for model in listed] == [kit.SLUG]
    refused = house.admissions.models(b"Bearer " + kit.TEXT_KEY)
    assert isinstance(refused, Reply)
    assert refused.status == 401


NAMING = ASKED[:-1] + b',"previous_response_id":"resp_1"}'


@in_virtual_time
async def test_a_body_that_names_an_object_at_the_upstream_needs_an_endpoint_that_allows_it(house: House) -> None:
    refused = await house.serve(house.client(NAMING))
    assert (refused.status, error_of(refused.got)["param"]) == (400, "previous_response_id")
    assert not house.upstream.requests
    house.assert_all_given_back()
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(upstream_objects=True)
    house.upstream.answers(PLAIN)
    assert (await house.serve(house.client(NAMING))).status == 200
    assert b"resp_1" in house.upstream.requests[0].body
    elsewhere = await house.serve(house.client(NAMING.replace(b"lab/model", b"lab/other")))
    assert (elsewhere.status, error_of(elsewhere.got)["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(("most", "reserved"), [(None, kit.MOST_OUTPUT), (9, 9), (100_000, 100_000), (10**6, 200_000)])
@in_virtual_time
async def test_no_choice_reserves_more_than_its_model_can_answer(house: House, most: int | None, reserved: int) -> None:
    house.directory.routes[kit.GROUP, kit.SLUG] = kit.route(max_output_tokens=most)
    house.upstream.answers(PLAIN)
    body = ASKED[:-1] + b',"max_tokens":200000}'
    assert (await house.serve(house.client(body))).status == 200
    assert [place.reserved[1] for _, place in house.windows.taken] == [-(-len(body) // 4) + reserved]

"""Limits as a developer meets them, on a real gateway: races, retries, trees, and changes in the middle of a day."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from schemas.base import rfc3339
from tests.e2e.conftest import SLUG, Lab, eventually

pytestmark = pytest.mark.slow


def day(kind: str, threshold: int) -> list[dict[str, Any]]:
    return [{"type": kind, "unit": "DAY", "threshold": threshold}]


def rate(kind: str, unit: str, threshold: int) -> list[dict[str, Any]]:
    return [{"type": kind, "unit": unit, "threshold": threshold}]


def body(max_tokens: int = 4) -> dict[str, Any]:
    return {"model": SLUG, "messages": [{"role": "user", "content": "x" * 40}], "max_tokens": max_tokens}


async def call(client: httpx.AsyncClient, lab: Lab, key: str, **fields: Any) -> httpx.Response:
    return await client.post(
        f"{lab.url}/v1/chat/completions", headers={"Authorization": f"Api-Key {key}"}, json=body() | fields
    )


async def storm(lab: Lab, key: str, requests: int, **fields: Any) -> list[httpx.Response]:
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=requests)) as client:
        return await asyncio.gather(*(call(client, lab, key, **fields) for _ in range(requests)))


def tokens_of(answers: list[httpx.Response]) -> list[int]:
    return [answer.json()["usage"]["total_tokens"] for answer in answers if answer.status_code == 200]


@pytest.mark.parametrize(
    "limits",
    [
        {"usage_limits": day("REQUEST", 1)},
        {"rate_limits": rate("REQUEST", "MINUTE", 1)},
    ],
    ids=["day", "rate"],
)
async def test_of_two_that_race_for_the_last_place_one_gets_it(lab: Lab, limits: dict[str, Any]) -> None:
    for number in range(10):
        _, key = lab.customer(f"race-{next(iter(limits))}-{number}", **limits)
        answers = await storm(lab, key, 2)
        assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 1}


@pytest.mark.parametrize("kind", ["rate_limits", "usage_limits"])
async def test_fifty_at_once_overshoot_a_token_limit_by_at_most_one_request(lab: Lab, kind: str) -> None:
    threshold = 100
    if kind == "rate_limits":
        _, key = lab.customer(f"fifty-{kind}", rate_limits=rate("TOKEN", "MINUTE", threshold))
    else:
        _, key = lab.customer(f"fifty-{kind}", usage_limits=day("TOKEN", threshold))
    answers = await storm(lab, key, 50, max_tokens=8)
    used = tokens_of(answers)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert sum(used) - max(used) < threshold, "without the last one it was below the threshold"
    assert sum(used) > 0
    while True:  # what estimates held back is free again; then the limit is met, and not passed by more than one
        (answer,) = await storm(lab, key, 1, max_tokens=8)
        if answer.status_code == 429:
            break
        used += tokens_of([answer])
    assert threshold <= sum(used) < threshold + max(used)


async def test_where_the_third_ancestor_refuses_nothing_is_taken_from_the_others(lab: Lab) -> None:
    parent: str | None = None
    groups: list[str] = []
    for level, threshold in enumerate((50, 50, 2, 2, 2)):
        made = lab.api(
            "POST",
            "/groups",
            {
                "metadata": {"external_entity_id": f"chain-{level}"},
                "models": [{"slug": SLUG, "rate_limits": rate("REQUEST", "MINUTE", threshold)}],
                "hierarchy": {"limit_enforcement": "CASCADING", "parent_group_id": parent},
            },
        )
        parent = made["id"]
        groups.append(made["id"])
    # the third's window is filled through its other child, so that below it there is room and above it too
    other_key = lab.customer("chain-other", parent=groups[2])[1]
    filled = [(await storm(lab, other_key, 1))[0].status_code for _ in range(2)]
    assert filled == [200, 200]
    leaf_key = lab.api("POST", f"/groups/{groups[-1]}/api_keys", {})["api_key"]
    root_key = lab.api("POST", f"/groups/{groups[0]}/api_keys", {})["api_key"]
    answers = [(await storm(lab, leaf_key, 1))[0] for _ in range(5)]
    assert {answer.status_code for answer in answers} == {429}
    assert {"set by a group above this key's own" in answer.json()["error"]["message"] for answer in answers} == {True}
    assert not any(group in answer.text for answer in answers for group in groups[:-1])
    (root,) = await storm(lab, root_key, 1)
    assert int(root.headers["x-ratelimit-remaining-requests"]) == 50 - 2 - 1, "five refusals took nothing above"
    assert {answer.headers["x-ratelimit-remaining-requests"] for answer in answers} == {"0"}


async def test_a_cascading_request_counts_for_every_group_above(lab: Lab) -> None:
    made = lab.api(
        "POST",
        "/groups",
        {
            "metadata": {"external_entity_id": "wide"},
            "models": [{"slug": SLUG, "usage_limits": day("REQUEST", 3)}],
            "hierarchy": {"limit_enforcement": "CASCADING"},
        },
    )
    keys = [
        lab.customer(f"narrow-{number}", parent=made["id"], usage_limits=day("REQUEST", 2))[1] for number in range(2)
    ]
    first = [(await storm(lab, keys[0], 1))[0].status_code for _ in range(3)]
    assert first == [200, 200, 429]
    second = [(await storm(lab, keys[1], 1))[0] for _ in range(2)]
    assert [answer.status_code for answer in second] == [200, 429]
    assert "set by a group above this key's own" in second[1].json()["error"]["message"]
    assert made["id"] not in second[1].text
    async with httpx.AsyncClient(headers={"Authorization": f"Api-Key {keys[1]}"}) as client:
        own = (await client.get(f"{lab.url}/v1/usage")).json()["usage"][SLUG]
    assert [(limit["threshold"], limit["current_usage"], limit["source"]) for limit in own] == [
        (2, 1, "own"),
        (3, 3, "above"),
    ]


async def test_clients_that_come_back_exactly_in_time_get_in_a_hundred_times(lab: Lab) -> None:
    loop = asyncio.get_running_loop()
    keys = [lab.customer(f"patient-{number}", rate_limits=rate("REQUEST", "SECOND", 5))[1] for number in range(10)]

    async def be_patient(client: httpx.AsyncClient, key: str) -> int:
        admitted = 0
        for _ in range(10):
            while (answer := await call(client, lab, key)).status_code == 200:
                pass
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            wait_ms = int(answer.headers["retry-after-ms"])
            assert int(answer.headers["retry-after"]) == -(-wait_ms // 1000)
            due = loop.create_future()
            loop.call_later(wait_ms / 1000, due.set_result, None)
            await due
            admitted += (await call(client, lab, key)).status_code == 200
        return admitted

    async with httpx.AsyncClient(timeout=30) as client:
        assert sum(await asyncio.gather(*(be_patient(client, key) for key in keys))) == 100


async def test_limits_changed_in_the_middle_of_a_day_hold_from_then_on(lab: Lab) -> None:
    group, key = lab.customer("changing", usage_limits=day("REQUEST", 2))

    async def status() -> int:
        return (await storm(lab, key, 1))[0].status_code

    def patch(**limits: Any) -> None:
        lab.api("PATCH", f"/groups/{group}", {"models": [{"slug": SLUG, **limits}]})

    async def soon(expected: int) -> None:
        async with asyncio.timeout(30):
            while await status() != expected:
                pass

    assert [await status() for _ in range(3)] == [200, 200, 429]
    patch(usage_limits=day("REQUEST", 4))
    await soon(200)
    patch(usage_limits=day("REQUEST", 1))
    await soon(429)
    patch()
    await soon(200)
    used = len(eventually(lambda: lab.ledger("changing")))
    patch(usage_limits=day("REQUEST", max(1, used - 1)))
    await soon(429)


async def test_what_the_upstream_refused_gives_back_the_day_but_not_the_rate(lab: Lab) -> None:
    group, key = lab.customer("refused", usage_limits=day("REQUEST", 1), rate_limits=rate("REQUEST", "MINUTE", 3))
    answers = [(await storm(lab, key, 1, messages="not a list"))[0] for _ in range(2)]
    assert {answer.status_code for answer in answers} == {400}
    (last,) = await storm(lab, key, 1)
    assert last.status_code == 200
    assert last.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(eventually(lambda: lab.ledger("refused"))) == 1
    assert group


@pytest.mark.parametrize("slug", [SLUG, "*"])
async def test_a_limit_on_the_month_counts_what_the_month_had_and_binds_at_once(lab: Lab, slug: str) -> None:
    name = f"monthly-{slug.strip('*') or 'all'}".replace("/", "-")
    group, key = lab.customer(name, usage_limits=day("REQUEST", 1000))
    assert [answer.status_code for answer in await storm(lab, key, 3)] == [200] * 3

    def used(of: str = SLUG) -> list[Any]:
        return [limit["current_usage"] for limit in lab.api("GET", f"/groups/{group}/usage")["usage"][of]]

    eventually(lambda: used() == [3])

    def limit_month(threshold: int) -> None:
        month = [{"type": "REQUEST", "unit": "MONTH", "threshold": threshold}]
        models = [{"slug": SLUG}] if slug == "*" else []
        lab.api("PATCH", f"/groups/{group}", {"models": [*models, {"slug": slug, "usage_limits": month}]})

    limit_month(3)
    (refused,) = await storm(lab, key, 1)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["code"] == "insufficient_quota"
    now = datetime.now(UTC)
    month_end = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=31)).replace(day=1)
    named = f"3 REQUEST per MONTH for {slug}, set by group {group}"
    assert error["message"] == f"Usage limit reached: {named}. It resets at {rfc3339(month_end)}."
    assert refused.headers["x-should-retry"] == "false"
    assert abs(int(refused.headers["retry-after"]) - (month_end - now).total_seconds()) < 60
    assert used(slug) == [3]
    limit_month(4)
    assert [(await storm(lab, key, 1))[0].status_code for _ in range(2)] == [200, 429]


def cost(threshold: int, unit: str = "DAY") -> list[dict[str, Any]]:
    return [{"type": "COST", "unit": unit, "threshold": threshold}]


async def test_a_budget_in_cents_is_held_as_tokens_are_and_counts_what_the_month_had(lab: Lab) -> None:
    rates = {"input": "0", "cached_input": "0", "output": "2500", "request": "0.01"}  # a cent a call, 0.25 a token
    price = {"slug": SLUG, "external_entity_id": "budget", "from": "2026-01-01", "currency": "EUR"} | rates
    lab.api("PUT", "/prices", [price])
    group, key = lab.customer("budget", usage_limits=cost(6))
    answers = await storm(lab, key, 20, max_tokens=8)  # each reserves 3 cents
    spent = [1 + answer.json()["usage"]["completion_tokens"] / 4 for answer in answers if answer.status_code == 200]
    assert len(spent) == 2
    while (answer := (await storm(lab, key, 1, max_tokens=8))[0]).status_code == 200:
        spent.append(1 + answer.json()["usage"]["completion_tokens"] / 4)
    assert 6 <= sum(spent) < 6 + max(spent)
    error = answer.json()["error"]
    assert (error["code"], answer.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert "6 COST per DAY" in error["message"]

    def used(slug: str = SLUG) -> list[Any]:
        return [limit["current_usage"] for limit in lab.api("GET", f"/groups/{group}/usage")["usage"][slug]]

    eventually(lambda: used() == [int(sum(spent))])
    assert {row["external_entity_id"] for row in lab.ledger("budget")} == {"budget"}
    for slug, models in ((SLUG, []), ("*", [{"slug": SLUG}])):
        limits = [*models, {"slug": slug, "usage_limits": cost(int(sum(spent)), "MONTH")}]
        lab.api("PATCH", f"/groups/{group}", {"models": limits})
        (refused,) = await storm(lab, key, 1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert used(slug) == [int(sum(spent))]
    lab.api("PUT", "/prices", [])
    lab.api("PATCH", f"/groups/{group}", {"models": [{"slug": SLUG, "usage_limits": cost(int(sum(spent)) + 1)}]})
    assert [answer.status_code for answer in await storm(lab, key, 3)] == [200] * 3, "without a price nothing costs"

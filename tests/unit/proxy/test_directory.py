"""The snapshot that requests are served from (contract 2.2, 3.1, counting 8)."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.core.calls import Key
from proxy.directory import ConfiguredDirectory
from proxy.limits.days import DayLimit
from proxy.limits.windows import WindowLimit
from schemas.config import ConfigChange, ConfigKind, PriceRecord, WorkspaceState
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, RateLimitUnit
from schemas.money import Price
from tests.unit.proxy import kit
from tests.unit.proxy.directories import (
    MADE,
    PREFIX,
    SHA256,
    TREE,
    change,
    directory,
    empty,
    end,
    endpoint,
    group,
    key,
    model,
    the_key,
    the_route,
    workspace,
)


def test_a_key_and_its_route() -> None:
    made = directory()
    assert the_key(made) == Key(PREFIX, bytes.fromhex(SHA256), "ws", "child", suspended=False)
    route = the_route(made)
    assert (route.url, route.target_model, route.credential) == (
        "https://up.example/v1/chat/completions",
        "theirs",
        None,
    )
    assert (route.slug, route.workspace_id, route.group_id) == ("lab/a", "ws", "child")
    assert (route.external_entity_id, route.charged_groups) == ("customer child", ("child",))
    assert (route.rates.root_group, route.rates.slug) == ("root", "lab/a")
    assert [(each.slug, each.created_at) for each in made.models(the_key(made))] == [("lab/a", MADE)]


def test_a_base_url_may_end_in_a_slash() -> None:
    assert (
        the_route(directory(endpoint(base_url="https://x.example/v1/"))).url == "https://x.example/v1/chat/completions"
    )


def test_what_is_not_there_is_none() -> None:
    assert empty().key(PREFIX) is None
    made = directory()
    assert made.key("sky_other") is None
    assert made.route(the_key(made), "lab/b") is None
    assert made.route(the_key(made), "") is None


def test_a_listed_slug_without_an_endpoint_is_not_callable() -> None:
    made = directory(group("child", model("lab/gone")))
    assert made.route(the_key(made), "lab/gone") is None
    assert [each.slug for each in made.models(the_key(made))] == ["lab/a"]


@pytest.mark.parametrize("was_used", [False, True])
def test_a_revoked_key(*, was_used: bool) -> None:
    made = directory()
    assert not was_used or made.key(PREFIX) is not None
    made.apply(end(50, ConfigKind.KEY, PREFIX))
    assert made.key(PREFIX) is None


@pytest.mark.parametrize("was_used", [False, True])
def test_a_keys_end_and_whether_it_is_disabled(*, was_used: bool) -> None:
    made = directory()
    assert not was_used or made.key(PREFIX) is not None
    made.apply(change(50, key().model_copy(update={"expires_at": kit.NOW, "disabled": True})))
    assert (the_key(made).expires_at, the_key(made).disabled) == (kit.NOW, True)
    made.apply(change(51, key()))
    assert (the_key(made).expires_at, the_key(made).disabled) == (None, False)


@pytest.mark.parametrize("gone", TREE)
def test_a_missing_ancestor_refuses_the_key(gone: str) -> None:
    made = directory()
    held = the_key(made)
    the_route(made)
    made.apply(end(50, ConfigKind.GROUP, gone))
    assert made.key(PREFIX) is None
    assert made.route(held, "lab/a") is None
    assert made.models(held) == []


def test_a_missing_workspace_refuses_the_key() -> None:
    made = directory()
    made.apply(end(50, ConfigKind.WORKSPACE, "ws"))
    assert made.key(PREFIX) is None


def test_a_suspended_workspace_shows_and_comes_back() -> None:
    made = directory(workspace(WorkspaceState.SUSPENDED))
    assert the_key(made).suspended
    made.apply(change(50, workspace()))
    assert not the_key(made).suspended


def test_another_workspaces_endpoint_is_not_called() -> None:
    made = directory(workspace(id_="other"), endpoint("e2", "other/b", "other"), group("child", model("other/b")))
    assert made.route(the_key(made), "other/b") is None
    assert [each.slug for each in made.models(the_key(made))] == ["lab/a"]


def test_a_key_of_another_workspace_than_its_group_is_refused() -> None:
    assert directory(workspace(id_="other"), key(workspace_id="other")).key(PREFIX) is None


def test_a_new_slug_leaves_the_old_one_behind() -> None:
    made = directory(group("child", model("lab/a"), model("lab/b")))
    the_route(made)
    made.apply(change(50, endpoint(slug="lab/b")))
    assert made.route(the_key(made), "lab/a") is None
    assert the_route(made, "lab/b").slug == "lab/b"


def test_a_deleted_endpoints_slug_can_be_another_ones() -> None:
    made = directory()
    the_route(made)
    made.apply(end(50, ConfigKind.ENDPOINT, "e1"))
    assert made.route(the_key(made), "lab/a") is None
    made.apply(change(51, endpoint("e2", base_url="https://new.example/v1")))
    assert the_route(made).url.startswith("https://new.example")


@pytest.mark.parametrize("version", [1, 9, 10])
def test_what_is_not_newer_is_ignored(version: int) -> None:
    made = directory()
    made.apply(change(10, endpoint(target_model="newest")))
    made.apply(change(version, endpoint(target_model="old")))
    assert the_route(made).target_model == "newest"
    made.apply(end(version, ConfigKind.ENDPOINT, "e1"))
    assert the_route(made).target_model == "newest"


def test_nothing_old_brings_back_what_is_gone() -> None:
    made = directory()
    made.apply(end(50, ConfigKind.KEY, PREFIX))
    made.apply(change(49, key()))
    assert made.key(PREFIX) is None
    made.apply(change(51, key()))
    assert made.key(PREFIX) is not None


def test_kinds_it_does_not_need_are_ignored() -> None:
    made = directory()
    made.apply(end(50, ConfigKind.WEBHOOK, "ws"))
    the_route(made)


def test_a_change_of_an_ancestor_is_in_the_next_route() -> None:
    made = directory()
    assert the_route(made).day_limits == ()
    made.apply(change(50, group("root", model(day=7))))
    assert the_route(made).day_limits == (DayLimit(LimitType.REQUEST, 7, "root", "child"),)
    made.apply(change(51, group("root", model(), model("lab/b"))))
    assert the_route(made).day_limits == ()


def test_independent_limits_come_from_the_closest_group_and_count_the_own_one() -> None:
    made = directory(group("root", model(day=1, minute=2)), group("middle", model(day=3)))
    route = the_route(made)
    assert route.charged_groups == ("child",)
    assert route.parent_groups == TREE[1:]
    assert route.day_limits == (DayLimit(LimitType.REQUEST, 3, "middle", "child"),)
    assert route.rates.limits == (WindowLimit(LimitType.REQUEST, RateLimitUnit.MINUTE, 2, "root", "child"),)


def test_cascading_limits_all_hold_and_count_their_sources() -> None:
    cascading: dict[str, Any] = {"limit_enforcement": LimitEnforcement.CASCADING}
    made = directory(
        group("root", model(day=5, minute=6), **cascading),
        group("middle", model(day=3), **cascading),
        group("child", **cascading),
    )
    route = the_route(made)
    assert route.charged_groups == TREE
    assert route.parent_groups == TREE[1:]
    assert route.day_limits == (
        DayLimit(LimitType.REQUEST, 3, "middle", "middle"),
        DayLimit(LimitType.REQUEST, 5, "root", "root"),
    )
    assert route.rates.limits == (WindowLimit(LimitType.REQUEST, RateLimitUnit.MINUTE, 6, "root", "root"),)


def test_unknown_slugs_fill_no_memory() -> None:
    made = directory()
    for number in range(100):
        made.route(the_key(made), f"lab/{number}")
    assert not len(made._routes)


HISTORY = [
    change(11, endpoint("e1", "lab/s")),
    change(12, endpoint("e1", "lab/t")),
    change(13, endpoint("e2", "lab/s")),
    end(14, ConfigKind.ENDPOINT, "e2"),
    change(15, endpoint("e3", "lab/s", base_url="https://third.example/v1")),
]


def test_whatever_the_order_of_changes_the_end_is_the_same() -> None:
    for order in itertools.permutations(HISTORY):
        made = directory(group("child", model("lab/s"), model("lab/t")))
        for each in order:
            made.apply(each)
        named = [each.version for each in order]
        assert the_route(made, "lab/s").url.startswith("https://third.example"), named
        assert the_route(made, "lab/t").url.startswith("https://up.example"), named
        assert made.route(the_key(made), "lab/a") is None, named


@pytest.mark.parametrize(("mode", "counting"), [("INDEPENDENT", "child"), ("CASCADING", "root")])
def test_limits_over_all_slugs_hold_beside_those_of_the_slug_and_grant_none(mode: str, counting: str) -> None:
    units = {"rate_limits": ["MINUTE", "CONCURRENT"], "usage_limits": ["DAY"]}
    over_all = {
        name: [{"type": "REQUEST", "unit": unit, "threshold": 9} for unit in listed] for name, listed in units.items()
    }
    listed = (model(day=5), ModelConfig.model_validate({"slug": "*"} | over_all))
    made = directory(*(group(each, *(listed if each == "root" else ()), limit_enforcement=mode) for each in TREE))
    route = the_route(made)
    own = DayLimit(LimitType.REQUEST, 5, "root", counting)
    assert route.day_limits == (own, DayLimit(LimitType.REQUEST, 9, "root", counting, over_all=True))
    for unit, limits in ((RateLimitUnit.MINUTE, route.rates.limits), (RateLimitUnit.CONCURRENT, route.concurrent)):
        assert limits == (WindowLimit(LimitType.REQUEST, unit, 9, "root", counting, over_all=True),)
    assert made.route(the_key(made), "*") is None
    assert [each.slug for each in made.models(the_key(made))] == ["lab/a"]


def test_limits_of_requests_in_flight_are_no_windows() -> None:
    at_once = {"type": "REQUEST", "unit": "CONCURRENT", "threshold": 3}
    listed = ModelConfig.model_validate(
        {"slug": "lab/a", "rate_limits": [at_once, {"type": "REQUEST", "unit": "MINUTE", "threshold": 5}]}
    )
    found = the_route(directory(group("child", listed)))
    unit = RateLimitUnit.CONCURRENT
    assert found.concurrent == (WindowLimit(LimitType.REQUEST, unit, 3, "child", "child"),)
    assert [limit.unit for limit in found.rates.limits if limit.source_group == "child"] == [RateLimitUnit.MINUTE]
    assert the_route(directory()).concurrent == ()


def price(slug: str = "lab/a", customer: str | None = None, from_: str = "2026-01-01", output: str = "2") -> Price:
    given = {"input": "1", "cached_input": "1", "output": output, "request": "0"}
    return Price(slug=slug, external_entity_id=customer, currency="EUR", **{"from": from_}, **given)


def priced(version: int, id_: str, record: Price, workspace_id: str = "ws") -> ConfigChange:
    told = PriceRecord(workspace_id=workspace_id, price=record)
    return ConfigChange(version=version, kind=ConfigKind.PRICE, id=id_, record=told)


def cost_of_two(made: ConfiguredDirectory, slug: str = "lab/a") -> int | None:
    """Return what two output tokens cost on the day of the tests; None where there is no price."""
    unit = the_route(made, slug).unit_cost(datetime(2026, 3, 1, tzinfo=UTC))
    return None if unit is None else unit.of(0, 0, 0, 2)


def test_a_route_knows_what_its_requests_cost_and_follows_each_change_of_a_price() -> None:
    made = directory()
    assert (the_route(made).tariff, cost_of_two(made)) == (None, None)
    made.apply(priced(10, "p1", price()))
    assert cost_of_two(made) == 400
    made.apply(priced(11, "p2", price(customer="customer child", output="3")))
    assert cost_of_two(made) == 600
    made.apply(priced(9, "p2", price(customer="customer child", output="9")))
    assert cost_of_two(made) == 600, "an older word"
    made.apply(end(12, ConfigKind.PRICE, "p2"))
    assert cost_of_two(made) == 400
    made.apply(priced(13, "p1", price(slug="lab/other")))
    assert cost_of_two(made) is None
    made.apply(end(14, ConfigKind.PRICE, "p1"))
    assert cost_of_two(made) is None


def test_prices_of_another_workspace_and_those_that_have_not_begun_cost_nothing() -> None:
    made = directory()
    made.apply(priced(10, "p1", price(), workspace_id="other"))
    assert the_route(made).tariff is None
    made.apply(priced(11, "p2", price(from_="2026-03-02")))
    assert cost_of_two(made) is None

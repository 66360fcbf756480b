"""Groups and developers' keys: the fakes and the store alike."""

from dataclasses import replace
from datetime import timedelta

from control.core.records import StoredApiKey, StoredGroup
from schemas.config import GroupRecord, KeyRecord
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, RateLimit, RateLimitUnit
from tests.contracts.control.desks import Desk
from tests.unit.control.fakes import NOW

LATER = NOW + timedelta(seconds=1)
RATE = RateLimit(type=LimitType.TOKEN, unit=RateLimitUnit.MINUTE, threshold=2**53)


def group(id_: str, *ancestors: str, customer: str | None = None, workspace_id: str = "lab") -> StoredGroup:
    record = GroupRecord(
        id=id_,
        workspace_id=workspace_id,
        external_entity_id=customer or f"customer {id_}",
        parent_group_id=ancestors[0] if ancestors else None,
        ancestor_ids=ancestors,
        limit_enforcement=LimitEnforcement.CASCADING,
        models=(ModelConfig(slug="acme/m", rate_limits=(RATE,)),),
    )
    return StoredGroup(record, None, NOW, NOW)


def api_key(prefix: str, group_id: str) -> StoredApiKey:
    record = KeyRecord(prefix=prefix, workspace_id="lab", group_id=group_id, sha256=prefix.ljust(64, "0"))
    return StoredApiKey(f"id of {prefix}", record, "prod", NOW)


ROOT, MIDDLE, LEAF, SIBLING = group("a"), group("b", "a"), group("c", "b", "a"), group("d", "a")
TREE = (ROOT, MIDDLE, LEAF, SIBLING)


def furnish(desk: Desk, *groups: StoredGroup) -> None:
    for each in groups:
        desk.groups.add(each)


def test_a_groups_chain_begins_with_itself_and_ends_with_its_root(desk: Desk) -> None:
    furnish(desk, *TREE)

    assert tuple(desk.groups.chain("c")) == (LEAF, MIDDLE, ROOT)
    assert tuple(desk.groups.chain("a")) == (ROOT,)
    assert tuple(desk.groups.chain("nothing")) == ()


def below(desk: Desk, id_: str, *slugs: str) -> set[str]:
    return {limit.group_id for limit in desk.groups.below(id_, slugs)}


def test_what_lies_below_is_all_of_these_slugs_and_no_other(desk: Desk) -> None:
    furnish(desk, *TREE, group("z"))

    found = {id_: below(desk, id_, "acme/m") for id_ in ("a", "b", "c", "z", "nothing")}
    assert found == {"a": {"b", "c", "d"}, "b": {"c"}, "c": set(), "z": set(), "nothing": set()}
    assert below(desk, "a", "acme/n") == below(desk, "a") == set()
    assert list(desk.groups.below("b", ["acme/n", "acme/m"])) == [("c", ("acme/m", "TOKEN", "MINUTE"), 2**53)]


def test_of_a_thousand_models_those_that_are_asked_for_are_found(desk: Desk) -> None:
    models = tuple(ModelConfig(slug=f"acme/{number}", rate_limits=(RATE,)) for number in range(1000))
    large = replace(MIDDLE, record=MIDDLE.record.model_copy(update={"models": models}))
    furnish(desk, ROOT, large)

    asked = [f"acme/{number}" for number in range(0, 1200, 2)]
    assert sorted(limit.place[0] for limit in desk.groups.below("a", asked)) == sorted(asked[:500])


def test_an_external_id_is_taken_in_its_own_workspace_until_the_group_is_gone(desk: Desk) -> None:
    furnish(desk, group("a", customer="acme"), group("b", customer="globex", workspace_id="other"))
    asked = [("lab", "acme"), ("other", "acme"), ("other", "globex"), ("lab", "Acme")]

    assert [desk.groups.external_id_owner(*each) for each in asked] == ["a", None, "b", None]
    desk.groups.remove(group("a", customer="acme"), NOW)
    assert desk.groups.external_id_owner("lab", "acme") is None
    furnish(desk, group("n", customer="acme"))
    assert desk.groups.external_id_owner("lab", "acme") == "n"


def test_a_groups_new_name_and_models_are_kept_in_every_chain(desk: Desk) -> None:
    furnish(desk, *TREE)
    changed = replace(ROOT, name="renamed", record=ROOT.record.model_copy(update={"models": ()}), updated_at=LATER)
    desk.groups.replace(changed, ROOT)

    assert tuple(desk.groups.chain("a")) == (changed,)
    assert tuple(desk.groups.chain("b")) == (MIDDLE, changed)


def test_a_group_goes_with_all_below_it_and_with_their_keys(desk: Desk) -> None:
    furnish(desk, *TREE)
    for prefix, owner in (("sky_root", "a"), ("sky_middle", "b"), ("sky_leaf", "c"), ("sky_sibling", "d")):
        desk.api_keys.add(api_key(prefix, owner))
    desk.groups.remove(MIDDLE, NOW)

    assert [bool(desk.groups.chain(id_)) for id_ in "abcd"] == [True, False, False, True]
    assert below(desk, "a", "acme/m") == {"d"}
    known = {name: desk.api_keys.find(f"sky_{name}") is not None for name in ("root", "middle", "leaf", "sibling")}
    assert known == {"root": True, "middle": False, "leaf": False, "sibling": True}
    assert desk.credentials.developer_key_sha256("sky_leaf") is None


def test_a_key_of_any_group_is_known_until_it_is_revoked(desk: Desk) -> None:
    furnish(desk, ROOT, group("o", workspace_id="other"))
    first, second = api_key("sky_first", "a"), api_key("sky_second", "o")
    for each in (first, second):
        desk.api_keys.add(each)
    assert [desk.api_keys.find(prefix) for prefix in ("sky_first", "sky_second", "sky_")] == [first, second, None]
    digests = [desk.credentials.developer_key_sha256(prefix) for prefix in ("sky_first", "sky_second", "sky_")]
    assert digests == [first.record.sha256, second.record.sha256, None]
    desk.api_keys.revoke(first, NOW)

    assert [desk.api_keys.find(prefix) for prefix in ("sky_first", "sky_second")] == [None, second]
    assert desk.credentials.developer_key_sha256("sky_first") is None


def test_what_a_key_may_have_is_kept_and_taken_away(desk: Desk) -> None:
    furnish(desk, ROOT)
    plain = api_key("sky_first", "a")
    desk.api_keys.add(plain)
    assert desk.api_keys.find("sky_first") == plain
    ending = plain.record.model_copy(update={"expires_at": LATER, "disabled": True})
    full = replace(
        plain, record=ending, name="new", disabled=True, metadata={"team": "red"}, successor_prefix="sky_second"
    )
    desk.api_keys.replace(full, LATER)
    assert desk.api_keys.find("sky_first") == full
    desk.api_keys.replace(plain, LATER)
    assert desk.api_keys.find("sky_first") == plain


def test_a_revoked_keys_prefix_may_be_another_keys(desk: Desk) -> None:
    furnish(desk, ROOT)
    desk.api_keys.add(api_key("sky_first", "a"))
    desk.api_keys.revoke(api_key("sky_first", "a"), NOW)
    again = replace(api_key("sky_first", "a"), id="another", name="again")
    desk.api_keys.add(again)

    assert desk.api_keys.find("sky_first") == again

"""Endpoints, slugs and secrets: the fakes and the store alike."""

from dataclasses import replace
from datetime import timedelta

from control.core.records import StoredSecret
from schemas.config import SecretRecord
from schemas.targets import Provider, Target
from tests.contracts.control.desks import Desk
from tests.unit.control.fakes import NOW, endpoint


def secret(id_: str, name: str = "upstream", *, workspace_id: str = "lab", sealed: str = "sealed") -> StoredSecret:
    return StoredSecret(SecretRecord(id=id_, workspace_id=workspace_id, sealed=sealed), name, NOW)


def test_an_endpoint_of_any_workspace_is_found_as_it_was_kept(desk: Desk) -> None:
    own, theirs = endpoint("e", "acme/m", workspace_id="lab"), endpoint("f", "globex/m", workspace_id="other")
    for each in (own, theirs):
        desk.endpoints.add(each)

    found = desk.endpoints.find("e")
    assert found == own
    assert found.record.target.model_fields_set == {"provider", "model_id"}
    assert desk.endpoints.find("f") == theirs
    assert desk.endpoints.find("acme/m") is None


def test_a_slug_is_taken_by_any_workspace_until_its_endpoint_is_renamed_or_gone(desk: Desk) -> None:
    own, theirs = endpoint("e", "acme/m", workspace_id="lab"), endpoint("f", "globex/m", workspace_id="other")
    for each in (own, theirs):
        desk.endpoints.add(each)
    assert [desk.endpoints.slug_taken(slug) for slug in ("acme/m", "globex/m", "acme/M", "acme")] == [
        True,
        True,
        False,
        False,
    ]
    desk.endpoints.replace(replace(own, record=own.record.model_copy(update={"slug": "acme/new"})))
    desk.endpoints.remove(theirs, NOW)

    assert [desk.endpoints.slug_taken(slug) for slug in ("acme/m", "globex/m", "acme/new")] == [False, False, True]
    assert desk.endpoints.find("f") is None


def test_an_endpoint_is_replaced_whole(desk: Desk) -> None:
    before = endpoint("e", "acme/m", workspace_id="lab")
    desk.endpoints.add(before)
    target = Target(provider=Provider.OPENAI_COMPATIBLE, base_url="https://up.example/v1", target_model="m")
    more = {"max_output_tokens": 8192, "upstream_objects": False}
    record = before.record.model_copy(update={"target": target} | more)
    after = replace(before, record=record, updated_at=NOW + timedelta(seconds=1))
    desk.endpoints.replace(after)

    assert desk.endpoints.find("e") == after


def test_missing_slugs_are_those_that_the_workspace_itself_does_not_serve(desk: Desk) -> None:
    desk.endpoints.add(endpoint("e", "acme/m", workspace_id="lab"))
    desk.endpoints.add(endpoint("f", "globex/m", workspace_id="other"))
    asked = ["z/z", "globex/m", "acme/m", "a/a"]

    assert list(desk.endpoints.missing("lab", asked)) == ["z/z", "globex/m", "a/a"], "in the order they were asked"
    assert list(desk.endpoints.missing("other", iter(asked))) == ["z/z", "acme/m", "a/a"]
    assert list(desk.endpoints.missing("lab", [])) == []


def test_a_secret_is_found_by_its_id_and_within_its_workspace_by_its_name(desk: Desk) -> None:
    own, more, theirs = secret("s"), secret("t", "more"), secret("u", workspace_id="other")
    for each in (theirs, more, own):
        desk.secrets.add(each)

    assert [desk.secrets.find(id_) for id_ in ("s", "u", "upstream")] == [own, theirs, None]
    assert [desk.secrets.named("lab", name) for name in ("upstream", "more", "Upstream")] == [own, more, None]
    assert desk.secrets.named("other", "upstream") == theirs
    assert desk.secrets.named("other", "more") is None


def test_a_secrets_value_is_replaced_and_a_secret_is_forgotten(desk: Desk) -> None:
    for each in (secret("s"), secret("t", "more")):
        desk.secrets.add(each)
    changed = secret("s", sealed="sealed anew")
    desk.secrets.replace(changed, NOW)
    assert desk.secrets.find("s") == desk.secrets.named("lab", "upstream") == changed
    desk.secrets.remove(changed, NOW)

    assert (desk.secrets.find("s"), desk.secrets.named("lab", "upstream")) == (None, None)
    assert desk.secrets.find("t") == secret("t", "more")


def test_a_secrets_user_is_an_endpoint_whose_target_names_it_now(desk: Desk) -> None:
    for each in (secret("s"), secret("t", "more")):
        desk.secrets.add(each)
    user = endpoint("e", "acme/m", workspace_id="lab", secret_id="s")
    desk.endpoints.add(user)
    desk.endpoints.add(endpoint("f", "acme/n", workspace_id="lab"))
    assert [desk.secrets.user(id_) for id_ in ("s", "t", "nothing")] == ["acme/m", None, None]

    moved = replace(user, record=endpoint("e", "acme/m", workspace_id="lab", secret_id="t").record)
    desk.endpoints.replace(moved)
    assert [desk.secrets.user(id_) for id_ in ("s", "t")] == [None, "acme/m"]
    desk.endpoints.remove(moved, NOW)
    assert desk.secrets.user("t") is None

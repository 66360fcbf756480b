"""Workspaces, their keys and webhook settings, and the journal: the fakes and the store alike."""

import pytest

from control.core.records import ManagementKey, Scope
from schemas.config import SealedSecret, WebhookRecord, WorkspaceRecord, WorkspaceState
from schemas.money import Price, Prices
from tests.contracts.control.desks import Desk, Note
from tests.unit.control.fakes import NOW

PREFIX = "tgm_abcdefghijkl"


def workspace(id_: str, name: str, state: WorkspaceState = WorkspaceState.ACTIVE) -> WorkspaceRecord:
    return WorkspaceRecord(id=id_, name=name, state=state, operator_credential=True)


def key(prefix: str = PREFIX, workspace_id: str = "lab") -> ManagementKey:
    return ManagementKey(prefix, workspace_id, WorkspaceState.ACTIVE, "0" * 64, Scope.READ)


def test_a_workspace_is_found_by_its_id_and_by_its_name(desk: Desk) -> None:
    made = workspace("third", "Ünïcode lab")
    desk.workspaces.add(made, NOW)

    assert [desk.workspaces.find(name) for name in ("third", "Ünïcode lab")] == [made, made]
    assert [desk.workspaces.find(name) for name in ("Third", "nobody", "")] == [None, None, None]


def test_an_id_wins_over_a_name_that_another_has(desk: Desk) -> None:
    for id_, name in (("z", "first"), ("first", "second"), ("a", "z")):
        desk.workspaces.add(workspace(id_, name), NOW)

    found = [desk.workspaces.find(name) for name in ("first", "z", "second")]
    assert [record.id for record in found if record] == ["first", "z", "first"]


def test_a_workspaces_new_state_is_kept_and_is_that_of_its_keys(desk: Desk) -> None:
    desk.workspaces.add_key(key(), NOW)
    before = desk.workspaces.find("lab")
    assert before is not None
    suspended = before.model_copy(update={"state": WorkspaceState.SUSPENDED})
    desk.workspaces.replace(suspended, NOW)

    assert desk.workspaces.find("lab") == suspended
    for found in (desk.workspaces.management_key(PREFIX), desk.credentials.management_key(PREFIX)):
        assert found is not None
        assert found.workspace_state is WorkspaceState.SUSPENDED


def test_a_prefix_has_one_owner_however_it_is_written(desk: Desk) -> None:
    desk.workspaces.add_prefix("lab", "Straße")
    desk.workspaces.add_prefix("lab", "more")
    desk.workspaces.add_prefix("other", "globex")

    owners = {prefix: desk.workspaces.prefix_owner(prefix) for prefix in ("STRASSE", "straße", "MORE", "globex", "mor")}
    assert owners == {"STRASSE": "lab", "straße": "lab", "MORE": "lab", "globex": "other", "mor": None}
    assert {prefix: desk.endpoints.prefix_owner(prefix) for prefix in owners} == owners


def test_a_public_key_is_the_workspaces_own_and_is_replaced(desk: Desk) -> None:
    assert desk.workspaces.public_key("lab") is None
    desk.workspaces.set_public_key("lab", "first")
    desk.workspaces.set_public_key("lab", "second")

    assert [desk.workspaces.public_key(id_) for id_ in ("lab", "other", "nobody")] == ["second", None, None]


def test_a_management_key_is_known_until_it_is_revoked(desk: Desk) -> None:
    others = key("tgm_zzzzzzzzzzzz", "other")
    for each in (key(), others):
        desk.workspaces.add_key(each, NOW)
    for port in (desk.workspaces, desk.credentials):
        assert [port.management_key(prefix) for prefix in (PREFIX, others.prefix)] == [key(), others]
        assert port.management_key("tgm_nothing") is None
    desk.workspaces.revoke_key(PREFIX, NOW)

    for port in (desk.workspaces, desk.credentials):
        assert [port.management_key(prefix) for prefix in (PREFIX, others.prefix)] == [None, others]


@pytest.mark.parametrize("url", [None, "https://hooks.example/in"])
def test_webhook_settings_are_kept_and_replaced_whole(desk: Desk, url: str | None) -> None:
    assert desk.webhooks.find("lab") is None
    sealed = SealedSecret(sealed="1")
    first = WebhookRecord(workspace_id="lab", url="https://a.example", enabled=True, secrets=(sealed,))
    second = WebhookRecord(
        workspace_id="lab",
        url=url,
        enabled=False,
        secrets=(SealedSecret(sealed="2"), sealed.model_copy(update={"expires_at": NOW})),
    )
    theirs = first.model_copy(update={"workspace_id": "other"})
    desk.webhooks.save(theirs, NOW)
    for settings in (first, second):
        desk.webhooks.save(settings, NOW)
        assert desk.webhooks.find("lab") == settings
    assert desk.webhooks.find("other") == theirs


def test_prices_are_kept_and_replaced_whole(desk: Desk) -> None:
    assert desk.prices.find("lab") == Prices(())
    rates = {"input": "0.15", "cached_input": "0", "output": "1", "request": "0.001"}
    price = Price(slug="acme/m", external_entity_id="cust", currency="EUR", **{"from": NOW.date()}, **rates)
    everyones = price.model_copy(update={"external_entity_id": None})
    desk.prices.save("other", Prices((everyones,)), NOW)
    for prices in (Prices((price, everyones)), Prices((everyones,)), Prices(())):
        desk.prices.save("lab", prices, NOW)
        assert desk.prices.find("lab") == prices
    assert desk.prices.find("other") == Prices((everyones,))


def test_the_journal_keeps_each_entry_as_it_was_told(desk: Desk) -> None:
    desk.journal.note("lab", "thing.create", "t", after={"name": "n", "list": [1, None]})
    desk.journal.note("other", "thing.change", "u", before={}, after={"name": None})
    desk.journal.note("lab", "thing.touch", "t")

    assert list(desk.notes()) == [
        Note("lab", "thing.create", "t", None, {"name": "n", "list": [1, None]}),
        Note("other", "thing.change", "u", {}, {"name": None}),
        Note("lab", "thing.touch", "t", None, None),
    ]

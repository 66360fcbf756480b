import pytest

from control import credentials
from control.core.records import Scope
from control.core.refusals import InvalidError, NotFoundError, RefusalError
from control.flow import workspaces
from runtime.vault import Vault
from schemas.config import WorkspaceState
from tests.unit.control.fakes import FakeStores
from tests.unit.control.flow.test_api_keys import PEM, PRIVATE


class Onboarding(FakeStores):
    vault = Vault(bytes(32))

    def create(self, name: str = "lab", org_prefix: str = "Acme") -> workspaces.Onboarded:
        return workspaces.create(
            self.unit(),
            self.vault,
            name=name,
            org_prefix=org_prefix,
            operator_credential=True,
        )


def test_a_lab_is_onboarded_whole() -> None:
    desk = Onboarding()
    told = desk.create()
    workspace = workspaces.get(desk.workspaces, "lab")
    assert (workspace.id, workspace.state, workspace.operator_credential) == (
        told.workspace_id,
        WorkspaceState.ACTIVE,
        True,
    )
    assert desk.workspaces.prefix_owner("ACME") == workspace.id
    assert credentials.matches(told.api_key, desk.workspaces.keys[told.api_key[:16]].sha256)
    (sealed,) = desk.webhooks.kept[workspace.id].secrets
    assert desk.vault.open(sealed.sealed, f"webhook:{workspace.id}") == told.webhook_secret


@pytest.mark.parametrize(("name", "prefix"), [("lab", "new"), ("new", "aCME"), ("", "new"), ("new", "")])
def test_a_second_lab_needs_its_own_name_and_prefix(name: str, prefix: str) -> None:
    desk = Onboarding()
    desk.create()
    with pytest.raises(RefusalError):
        desk.create(name, prefix)
    assert len(desk.workspaces.kept) == 1


def test_a_state_that_is_so_already_is_no_change() -> None:
    desk = Onboarding()
    desk.create()
    for state in (WorkspaceState.SUSPENDED, WorkspaceState.SUSPENDED, WorkspaceState.ACTIVE):
        assert workspaces.set_state(desk.unit(), "lab", state).state is state
    assert desk.workspaces.changes == 2
    for name in ("nobody", "a\udcff"):
        with pytest.raises(NotFoundError):
            workspaces.get(desk.workspaces, name)
    assert desk.journal.actions == ["workspace.create", "workspace.suspend", "workspace.resume"]


def test_one_more_prefix() -> None:
    desk = Onboarding()
    owner = desk.create().workspace_id
    workspaces.add_prefix(desk.unit(), "lab", "More")
    assert desk.workspaces.prefix_owner("mORE") == owner
    for taken in ("more", "Acme", "a/b", ""):
        with pytest.raises(InvalidError) as refusal:
            workspaces.add_prefix(desk.unit(), "lab", taken)
        assert refusal.value.param == "org_prefix"


def test_a_public_key_is_set_and_changed() -> None:
    desk = Onboarding()
    owner = desk.create().workspace_id
    workspaces.set_public_key(desk.unit(), "lab", PEM)
    key = desk.workspaces.public_key(owner)
    assert key is not None
    workspaces.set_public_key(desk.unit(), "lab", PEM)
    assert desk.journal.notes[-1] == (
        owner,
        "workspace.set_public_key",
        owner,
        {"public_key": key},
        {"public_key": key},
    )
    with pytest.raises(InvalidError) as refusal:
        workspaces.set_public_key(desk.unit(), "lab", PRIVATE.private_bytes_raw())
    assert refusal.value.param == "file"


def test_management_keys_come_and_go() -> None:
    desk = Onboarding()
    first = desk.create().api_key
    plaintext, key = workspaces.issue_key(desk.unit(), "lab", Scope.READ)
    assert credentials.matches(plaintext, desk.workspaces.keys[key.prefix].sha256)
    assert (key.scope, key.prefix) == (Scope.READ, plaintext[:16])
    workspaces.revoke_key(desk.unit(), "lab", key.prefix)
    assert list(desk.workspaces.keys) == [first[:16]]
    desk.create("other", "globex")
    for name, prefix in (("lab", key.prefix), ("other", first[:16])):
        with pytest.raises(NotFoundError):
            workspaces.revoke_key(desk.unit(), name, prefix)
    actions = ["workspace.create", "management_key.create", "management_key.revoke", "workspace.create"]
    assert desk.journal.actions == actions


def test_the_journal_holds_no_credential() -> None:
    desk = Onboarding()
    told = desk.create()
    plaintext, _ = workspaces.issue_key(desk.unit(), "lab", Scope.MANAGE)
    noted = repr(desk.journal.notes)
    for secret in (told.api_key, told.webhook_secret, plaintext):
        assert secret not in noted
        assert credentials.digest(secret) not in noted

import pytest

from control.core.records import StoredSecret
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import secrets
from domain.sealing import secret_context
from runtime.vault import Vault, VaultError
from schemas.api import CreateSecret
from tests.unit.control.fakes import NOW, FakeStores, endpoint

VAULT = Vault(bytes(32))


class Office(FakeStores):
    def save(self, value: str, name: str = "upstream", workspace_id: str = "w") -> StoredSecret:
        body = CreateSecret(name=name, value=value)
        return secrets.save(self.unit(workspace_id), VAULT, body)

    def delete(self, secret_id: str) -> StoredSecret:
        return secrets.delete(self.unit(), secret_id)


def test_a_value_is_sealed_for_its_workspace_and_id_alone() -> None:
    kept = Office().save("sk-1")
    assert "sk-1" not in repr(kept)
    assert VAULT.open(kept.record.sealed, secret_context("w", kept.record.id)) == "sk-1"
    for context in (secret_context("other", kept.record.id), secret_context("w", "other"), "webhook:w"):
        with pytest.raises(VaultError):
            VAULT.open(kept.record.sealed, context)


def test_the_same_name_replaces_the_value_and_keeps_the_id() -> None:
    office = Office()
    first, second = office.save("sk-1"), office.save("sk-2")
    assert (first.record.id, first.created_at) == (second.record.id, second.created_at)
    assert (
        VAULT.open(office.secrets.kept[first.record.id].record.sealed, secret_context("w", first.record.id)) == "sk-2"
    )
    others = office.save("sk-3", workspace_id="other"), office.save("sk-4", name="more")
    assert len({first.record.id, *(other.record.id for other in others)}) == 3
    assert office.journal.actions == ["secret.create", "secret.replace", "secret.create", "secret.create"]
    assert "sk-" not in repr(office.journal.notes)


def test_a_secret_in_use_stays() -> None:
    office = Office()
    kept = office.save("sk-1").record.id
    user = endpoint("e", "acme/m", secret_id=kept)
    office.endpoints.add(user)
    with pytest.raises(InvalidError, match="acme/m") as refusal:
        office.delete(kept)
    assert refusal.value.code == "secret_in_use"
    office.endpoints.remove(user, NOW)
    assert office.delete(kept).name == "upstream"
    with pytest.raises(NotFoundError):
        office.delete(kept)


def test_another_workspaces_secret_is_forbidden() -> None:
    office = Office()
    kept = office.save("sk-1", workspace_id="other").record.id
    with pytest.raises(ForbiddenError):
        office.delete(kept)
    assert kept in office.secrets.kept

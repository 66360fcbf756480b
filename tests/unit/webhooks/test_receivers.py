"""Where deliveries go, as the configuration feed says."""

import logging

import pytest

from runtime.vault import Vault
from schemas.config import ConfigChange, ConfigKind, SealedSecret, WebhookRecord, WorkspaceRecord, WorkspaceState
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Receiver
from webhooks.receivers import ConfiguredReceivers

VAULT = Vault(bytes(32))
URL = "https://lab.example/hook"


def sealed(secret: str, expires_s: float | None = None, context: str = "webhook:ws") -> SealedSecret:
    expires_at = None if expires_s is None else kit.after(expires_s)
    return SealedSecret(sealed=VAULT.seal(secret, context), expires_at=expires_at)


def change(version: int, *secrets: SealedSecret, url: str | None = URL, enabled: bool = True) -> ConfigChange:
    record = WebhookRecord(workspace_id="ws", url=url, enabled=enabled, secrets=secrets)
    return ConfigChange(version=version, kind=ConfigKind.WEBHOOK, id="ws", record=record)


def test_an_unknown_workspace_has_nowhere_to_deliver_to() -> None:
    receiver = ConfiguredReceivers(VAULT).receiver("ws", kit.START)
    assert (receiver.url, receiver.is_due, receiver.is_ready) == (None, False, False)


def test_the_newest_version_holds_whatever_the_order() -> None:
    receivers = ConfiguredReceivers(VAULT)
    receivers.apply(change(5, sealed(kit.SECRET)))
    receivers.apply(change(4, sealed(kit.OLDER_SECRET), url="https://old.example"))
    receivers.apply(change(5, url=None))
    assert receivers.receiver("ws", kit.START) == Receiver(URL, enabled=True, secrets=(kit.SECRET,))


def test_other_kinds_are_ignored() -> None:
    receivers = ConfiguredReceivers(VAULT)
    receivers.apply(change(1, sealed(kit.SECRET)))
    workspace = WorkspaceRecord(id="ws", name="lab", state=WorkspaceState.SUSPENDED, operator_credential=False)
    receivers.apply(ConfigChange(version=9, kind=ConfigKind.WORKSPACE, id="ws", record=workspace))
    assert receivers.receiver("ws", kit.START).is_ready


def test_a_removed_webhook_is_nowhere_and_stays_so() -> None:
    receivers = ConfiguredReceivers(VAULT)
    receivers.apply(ConfigChange(version=2, kind=ConfigKind.WEBHOOK, id="ws", record=None))
    receivers.apply(change(1, sealed(kit.SECRET)))
    assert not receivers.receiver("ws", kit.START).is_due


def test_both_secrets_sign_until_the_overlap_ends() -> None:
    receivers = ConfiguredReceivers(VAULT)
    receivers.apply(change(1, sealed(kit.SECRET), sealed(kit.OLDER_SECRET, expires_s=60)))
    assert receivers.receiver("ws", kit.after(59.9)).secrets == (kit.SECRET, kit.OLDER_SECRET)
    assert receivers.receiver("ws", kit.after(60)).secrets == (kit.SECRET,)


@pytest.mark.parametrize(("url", "enabled"), [(None, True), (URL, False)])
def test_without_url_or_disabled_nothing_is_due(url: str | None, *, enabled: bool) -> None:
    receivers = ConfiguredReceivers(VAULT)
    receivers.apply(change(1, sealed(kit.SECRET), url=url, enabled=enabled))
    assert not receivers.receiver("ws", kit.START).is_due


@pytest.mark.parametrize("broken", [sealed(kit.SECRET, context="webhook:other"), sealed("no secret")])
def test_a_secret_that_cannot_be_used_is_named_and_its_deliveries_wait(
    broken: SealedSecret, caplog: pytest.LogCaptureFixture
) -> None:
    receivers = ConfiguredReceivers(VAULT)
    with caplog.at_level(logging.ERROR):
        receivers.apply(change(1, broken))
    receiver = receivers.receiver("ws", kit.START)
    assert (receiver.is_due, receiver.is_ready) == (True, False)
    assert "workspace ws: a webhook secret cannot be used" in caplog.text
    assert "no secret" not in caplog.text


def test_secrets_do_not_show() -> None:
    assert kit.SECRET not in repr(Receiver(URL, enabled=True, secrets=(kit.SECRET,)))

"""Where each workspace's deliveries go, as the configuration feed says (contract 5).

Never returns an older version's URL or secrets, and never logs a secret.
"""

import logging
from datetime import datetime
from typing import NamedTuple

from domain.sealing import webhook_context
from runtime.config.newest import Newest
from runtime.vault import Vault, VaultError
from schemas.config import ConfigChange, ConfigKind, WebhookRecord
from webhooks.core import signing
from webhooks.core.deliveries import Receiver

_log = logging.getLogger(__name__)
_NOWHERE = Receiver(url=None, enabled=False, secrets=())
_Secret = tuple[str, datetime | None]  # the opened text, and when it ceases to sign


class _Setting(NamedTuple):
    record: WebhookRecord
    secrets: tuple[_Secret, ...]


class ConfiguredReceivers:
    """Webhook settings by workspace. Feed it before intake starts: an unknown workspace's deliveries are `not_due`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._settings: Newest[_Setting] = Newest()

    def apply(self, change: ConfigChange) -> None:
        """Take one step of the feed; other kinds and versions not above the one held are ignored."""
        if change.kind is ConfigKind.WEBHOOK and self._settings.is_new(change.id, change.version):
            record = change.record
            setting = _Setting(record, self._open(record)) if isinstance(record, WebhookRecord) else None
            self._settings.put(change.id, change.version, setting)

    def receiver(self, workspace_id: str, now: datetime) -> Receiver:
        """Return the receiver of this moment: its secrets are those whose overlap has not ended at `now`."""
        setting = self._settings.get(workspace_id)
        if setting is None:
            return _NOWHERE
        valid = tuple(text for text, expires_at in setting.secrets if expires_at is None or now < expires_at)
        return Receiver(setting.record.url, setting.record.enabled, valid)

    def _open(self, record: WebhookRecord) -> tuple[_Secret, ...]:
        """Open what can be opened: one lab's broken secret must not stop the others' deliveries."""
        opened = []
        for secret in record.secrets:
            try:
                text = self._vault.open(secret.sealed, webhook_context(record.workspace_id))
                signing.decode(text)
            except (VaultError, signing.SecretError) as error:
                _log.error("workspace %s: a webhook secret cannot be used: %s", record.workspace_id, error)
            else:
                opened.append((text, secret.expires_at))
        return tuple(opened)

"""Webhook settings: where they go, and when a URL is judged."""

import pytest

from control.core.refusals import InvalidError, NotFoundError
from control.flow import webhooks
from schemas.billing import BillingWebhook
from schemas.config import SealedSecret, WebhookRecord
from tests.unit.control.fakes import NOW, FakeStores

PRIVATE = "http://127.0.0.1:9/in"


class Desk(FakeStores):
    def __init__(self) -> None:
        super().__init__()
        secrets = (SealedSecret(sealed="sealed"),)
        self.webhooks.save(WebhookRecord(workspace_id="lab", url=None, enabled=True, secrets=secrets), NOW)

    def save(self, url: str | None, *, enabled: bool = True, allow_private: bool = False) -> WebhookRecord:
        body = BillingWebhook(url=url, enabled=enabled)
        return webhooks.save(self.unit("lab"), body, allow_private=allow_private)


def test_a_webhook_keeps_its_secret_while_it_is_disabled() -> None:
    desk = Desk()
    before = desk.save("https://hooks.example/in")
    assert desk.save("https://hooks.example/in", enabled=False) == before.model_copy(update={"enabled": False})
    assert desk.webhooks.kept["lab"].secrets
    assert desk.journal.actions == ["webhook.update"] * 2
    desk.webhooks.kept.clear()
    with pytest.raises(NotFoundError):
        desk.save(None)


def test_a_url_is_judged_when_it_changes() -> None:
    desk = Desk()
    with pytest.raises(InvalidError, match="url"):
        desk.save(PRIVATE)
    desk.save(PRIVATE, allow_private=True)
    assert not desk.save(PRIVATE, enabled=False).enabled
    with pytest.raises(InvalidError, match="url"):
        desk.save(PRIVATE + "2", enabled=False)


def test_a_test_needs_a_url() -> None:
    desk = Desk()
    with pytest.raises(InvalidError) as refusal:
        webhooks.receiver(desk.unit("lab"))
    assert refusal.value.code == "no_url"
    saved = desk.save("https://hooks.example/in")
    assert webhooks.receiver(desk.unit("lab")) == (saved, saved.url)

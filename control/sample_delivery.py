"""Sends a lab a signed delivery that bills nothing, so that it can try its receiver.

A test is in no ledger, no delivery and no count.
"""

import asyncio
import ssl
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import httpx

from control.core.refusals import OverloadedError, ShareExceededError
from domain.sealing import webhook_context
from runtime import clock, ids
from runtime.lookups import Lookups
from runtime.vault import Vault
from schemas.billing import TestedWebhook
from schemas.config import WebhookRecord
from schemas.usage import Outcome, Producer, Tokens, UsageEvent, UsageSource
from webhooks.core import batching, signing
from webhooks.core.deliveries import Prepared
from webhooks.core.retry import AttemptResult
from webhooks.sender import HttpSender

WITHIN_S = 10.0
"""How long the one attempt may take (contract 5)."""

AT_ONCE = 8
"""Tests of a process under way at once."""

OF_ONE = 2
"""What one workspace may have of these: a receiver that hangs holds each for WITHIN_S."""


class SampleDelivery:
    """Makes test deliveries, a few at once."""

    def __init__(self, vault: Vault, *, allow_private: bool) -> None:
        self._vault = vault
        self._allow_private = allow_private
        self._under_way: Counter[str] = Counter()
        self._lookups = Lookups()
        self._ssl: ssl.SSLContext | None = None

    async def send(self, record: WebhookRecord, url: str, now: datetime) -> TestedWebhook:
        """Make one attempt at `url`, with the secrets that are valid at `now`.

        What is signed is this machine's time, as receivers compare it with their own; `now` may be ahead of it. Raise
        ShareExceededError where the workspace has OF_ONE under way, OverloadedError where all together have AT_ONCE.
        """
        workspace_id = record.workspace_id
        if self._under_way[workspace_id] >= OF_ONE:
            raise ShareExceededError(f"{OF_ONE} tests of this workspace are under way; send it again in a moment")
        if self._under_way.total() >= AT_ONCE:
            raise OverloadedError(f"{AT_ONCE} tests are under way; send it again in a moment")
        self._under_way[workspace_id] += 1
        try:
            body, delivery_id = batching.freeze_test(_event(workspace_id, now)), str(uuid.uuid4())
            headers = signing.sign(body, delivery_id, self._secrets(record, now), clock.present())
            outcome = await self._attempt(Prepared(url, headers, body, WITHIN_S, workspace_id))
        finally:
            self._under_way[workspace_id] -= 1
            self._under_way += Counter()  # those at zero go
        status = outcome.status_code
        return TestedWebhook(
            delivered=status is not None and 200 <= status < 300,
            status_code=status,
            error=outcome.error,
            duration_ms=outcome.duration_ms,
        )

    async def _attempt(self, prepared: Prepared) -> AttemptResult:
        if self._ssl is None:  # reads every root certificate: not on the event loop
            self._ssl = await asyncio.to_thread(httpx.create_ssl_context)
        sender = HttpSender(allow_private=self._allow_private, ssl_context=self._ssl, lookups=self._lookups)
        try:
            return await sender.send(prepared)
        finally:
            await sender.aclose()

    def _secrets(self, record: WebhookRecord, now: datetime) -> Sequence[str]:
        valid = [secret for secret in record.secrets if secret.expires_at is None or now < secret.expires_at]
        return [self._vault.open(secret.sealed, webhook_context(record.workspace_id)) for secret in valid]


def _event(workspace_id: str, now: datetime) -> UsageEvent:
    return UsageEvent(
        idempotency_key=ids.mint(now),
        request_id=ids.uuid7(now),
        timestamp=now,
        workspace_id=workspace_id,
        group_id="test",
        charged_groups=(),
        external_entity_id="test",
        api_key_prefix="sky_test",
        model_slug="test/test",
        request_metadata={"test": "true"},
        tokens=Tokens(input_tokens=1, output_tokens=1),
        usage_source=UsageSource.ESTIMATED,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=0,
        first_byte_ms=0,
        producer=Producer(instance="test", sequence=1),
    )

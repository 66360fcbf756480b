"""Usage events to put into sinks."""

from schemas.usage import Outcome, Tokens, UsageDraft, UsageSource
from tests.unit.proxy import kit


def draft(number: int = 0, padding: int = 0) -> UsageDraft:
    """Return the event of request `number`, with `padding` characters of metadata."""
    return UsageDraft(
        idempotency_key=f"key-{number}",
        request_id=f"request-{number}",
        timestamp=kit.NOW.replace(microsecond=250_000),
        workspace_id=kit.WORKSPACE,
        group_id=kit.GROUP,
        charged_groups=(kit.GROUP, "parent"),
        external_entity_id="customer-1",
        api_key_prefix="sky_abcdefghijkl",
        model_slug=kit.SLUG,
        request_metadata={"text": "é" * padding} if padding else None,
        tokens=Tokens(input_tokens=number, output_tokens=2, cached_input_tokens=0),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=7,
        first_byte_ms=None,
    )

"""An example of each operation's body and answer, by its operation id; a test holds them against the contracts."""

from typing import Any

from control.core import usage_csv
from schemas.money import Dimension, UsageLine

_GROUP_ID, _ROOT_ID = "01KB6Z0C5W8Q4T9M2N7R3X1Y5V", "01KB6YZ3J1H2G4F5D6S7A8P9Q0"
_AT, _LATER = "2026-11-29T09:30:00.123Z", "2026-11-29T09:30:01.456Z"
_SLUG, _PREFIX = "your-org/small", "sky_abcdefghijkl"
_KEY = f"{_PREFIX}.0123456789abcdefghijklmnopqrstuvwxyz"
_TARGET = {
    "provider": "OPENAI_COMPATIBLE",
    "base_url": "https://models.your-lab.com/v1",
    "target_model": "small-2026",
    "secret_id": "01KB6YX0A1B2C3D4E5F6G7H8J9",
}
_ENDPOINT = {
    "id": "01KB6YY7K2M3N4P5Q6R7S8T9V0",
    "slug": _SLUG,
    "region": "UNRESTRICTED",
    "targets": [_TARGET],
    "created_at": _AT,
    "updated_at": _AT,
}
_METADATA = {"external_entity_id": "acme", "name": "Acme Inc."}
_RATE = {"type": "REQUEST", "unit": "MINUTE", "threshold": 60}
_DAY = {"type": "TOKEN", "unit": "DAY", "threshold": 1_000_000}
_MODEL = {"slug": _SLUG, "rate_limits": [_RATE], "usage_limits": [_DAY]}
_GROUP = {
    "id": _GROUP_ID,
    "metadata": _METADATA,
    "models": [_MODEL],
    "effective_models": [
        {
            "slug": _SLUG,
            "rate_limits": [_RATE | {"source_group": _GROUP_ID}],
            "usage_limits": [_DAY | {"source_group": _GROUP_ID}],
        }
    ],
    "hierarchy": {"limit_enforcement": "INDEPENDENT", "parent_group_id": _ROOT_ID},
    "created_at": _AT,
    "updated_at": _AT,
}
_API_KEY = {"prefix": _PREFIX, "name": "production", "created_at": _AT}
_CREATED_KEY = {"api_key": _KEY, "prefix": _PREFIX, "name": "production"}
_SECRET = {"id": "01KB6YX0A1B2C3D4E5F6G7H8J9", "name": "upstream", "created_at": _AT}
_REQUEST_ID = "019acf02-41ab-7c34-9a51-3d1c0f6b7e42"
_EVENT = {
    "idempotencyKey": "01KB7G4GDB3V8W2X5Y9Z1A4B6C",
    "timestamp": _AT,
    "requestId": _REQUEST_ID,
    "requestMetadata": {"order": "17"},
    "groupId": _GROUP_ID,
    "parentGroups": [_ROOT_ID],
    "modelSlug": _SLUG,
    "externalEntityId": "acme",
    "externalCustomerId": "acme",
    "apiKeyPrefix": _PREFIX,
    "tokens": {"inputTokens": 12, "outputTokens": 34, "cachedInputTokens": 0},
    "usageSource": "provider",
    "outcome": "complete",
    "recordedAt": _LATER,
}
_ATTEMPT = {"at": _LATER, "status_code": 200, "error": None, "duration_ms": 41}
_DELIVERY = {
    "id": "5f0d4b3e-8f2b-4b8e-9a43-7d7c1a2b3c4d",
    "status": "delivered",
    "reason": None,
    "created_at": _LATER,
    "event_count": 1,
    "next_attempt_at": None,
    "attempts": [_ATTEMPT],
}
_WEBHOOK = {"url": "https://billing.your-lab.com/webhook", "enabled": True}
_PRICES = [
    {
        "slug": _SLUG,
        "external_entity_id": None,
        "from": "2026-11-01",
        "currency": "EUR",
        "input": "0.15",
        "cached_input": "0.075",
        "output": "0.60",
        "request": "0",
    }
]
_LINE = {
    "customer": "acme",
    "model": _SLUG,
    "requests": 2,
    "input_tokens": 24,
    "output_tokens": 68,
    "cached_input_tokens": 0,
    "corrections": 0,
    "corrected_input_tokens": 0,
    "corrected_output_tokens": 0,
    "price": _PRICES[0],
    "currency": "EUR",
    "amount": "0.00",
}


def _page(item: Any) -> dict[str, Any]:
    return {"items": [item], "pagination": {"has_more": False, "cursor": None}}


BODIES: dict[str, Any] = {
    "create_endpoint": {"slug": _SLUG, "targets": [_TARGET]},
    "update_endpoint": {"targets": [_TARGET | {"target_model": "small-2027"}]},
    "create_group": {"metadata": _METADATA, "models": [_MODEL], "hierarchy": {"parent_group_id": _ROOT_ID}},
    "update_group": {"models": [_MODEL | {"usage_limits": [_DAY | {"threshold": 2_000_000}]}]},
    "create_api_key": {"name": "production"},
    "create_api_keys": {"items": [{"name": "production"}, {"name": "staging"}]},
    "update_api_key": {"disabled": True},
    "rotate_api_key": {"overlap_seconds": 3600},
    "register_api_key": {"name": "production", "key": "your-own-key-01:5kq8v2xw9zb4nt7rj3mf6hd1"},
    "save_secret": {"name": "upstream", "value": "the credential"},
    "update_billing_webhook": _WEBHOOK,
    "rotate_webhook_secret": {"overlap_seconds": 3600},
    "redrive_deliveries": {"from": "2026-11-29T00:00:00.000Z", "to": None},
    "set_prices": _PRICES,
}
ANSWERS: dict[str, Any] = {
    "list_endpoints": _page(_ENDPOINT),
    "create_endpoint": _ENDPOINT,
    "get_endpoint": _ENDPOINT,
    "update_endpoint": _ENDPOINT | {"targets": [_TARGET | {"target_model": "small-2027"}], "updated_at": _LATER},
    "delete_endpoint": {"id": _ENDPOINT["id"], "slug": _SLUG},
    "list_groups": _page(_GROUP),
    "create_group": _GROUP,
    "get_group": _GROUP,
    "update_group": _GROUP | {"updated_at": _LATER},
    "delete_group": {"id": _GROUP_ID, "metadata": _METADATA, "deleted_at": _LATER},
    "get_group_usage": {
        "customer_id": "acme",
        "usage": {
            _SLUG: [
                _DAY | {"current_usage": 46, "reset_at": "2026-11-30T00:00:00.000Z", "source_group": _GROUP_ID},
            ]
        },
    },
    "list_api_keys": _page(_API_KEY),
    "create_api_key": _CREATED_KEY,
    "create_api_keys": {"items": [_CREATED_KEY]},
    "register_api_key": {"ok": True},
    "get_api_key": _API_KEY,
    "update_api_key": _API_KEY | {"disabled": True},
    "rotate_api_key": _CREATED_KEY | {"previous_expires_at": "2026-11-29T10:30:00.123Z"},
    "revoke_api_key": {"prefix": _PREFIX},
    "list_secrets": _page(_SECRET),
    "save_secret": _SECRET,
    "delete_secret": {"id": _SECRET["id"], "name": "upstream"},
    "list_events": _page(_EVENT),
    "get_billing_webhook": _WEBHOOK,
    "update_billing_webhook": _WEBHOOK,
    "rotate_webhook_secret": {
        "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "previous_expires_at": "2026-11-29T10:30:00.123Z",
    },
    "test_billing_webhook": {"delivered": True, "status_code": 200, "error": None, "duration_ms": 41},
    "list_deliveries": _page(_DELIVERY),
    "get_delivery": _DELIVERY
    | {
        "attempts": [_ATTEMPT | {"answer": "ok"}],
        "body": '{"type":"API_BILLING_USAGE","data":{"events":[...]}}',
    },
    "redeliver_delivery": _DELIVERY | {"status": "pending", "next_attempt_at": _LATER},
    "redrive_deliveries": {"count": 3},
    "get_request": {
        "request_id": _REQUEST_ID,
        "at": _AT,
        "outcome": "complete",
        "status": None,
        "reason": None,
        "detail": None,
        "group_id": _GROUP_ID,
        "api_key_prefix": _PREFIX,
        "model_slug": _SLUG,
        "route": "chat.completions",
        "upstream": None,
        "latency_ms": 412,
        "first_byte_ms": 96,
        "event": _EVENT,
        "delivery": _DELIVERY,
    },
    "get_usage": _page(_LINE),
    "get_prices": _PRICES,
    "set_prices": _PRICES,
}
USAGE_AS_CSV = usage_csv.written([Dimension.CUSTOMER, Dimension.MODEL], [UsageLine.model_validate(_LINE)])
ERROR: dict[str, Any] = {
    "error": {
        "message": "slug: the prefix your-org belongs to another workspace",
        "type": "invalid_request_error",
        "param": "slug",
        "code": "invalid_body",
    }
}
PARAMETERS = {
    "limit": "How many items the page may have.",
    "cursor": "The `cursor` of the page before; without it, the first page.",
    "slug": "Only the endpoint with this slug.",
    "external_entity_id": "Only what belongs to the customer that the lab calls so.",
    "api_key_prefix": "The first 16 characters of a key.",
    "request_id": "The `x-request-id` of an answer of the inference API.",
    "order": "What the window and the order go by: admission (`timestamp`), or when the ledger took it (`recorded`).",
    "status": "Only deliveries of this status.",
    "endpoint_id": "The endpoint's `id`.",
    "group_id": "The group's `id`.",
    "secret_id": "The secret's `id`.",
    "delivery_id": "The delivery's `id`, the `X-Baseten-Request-ID` of its attempts.",
}
"""By name, of parameters that say nothing themselves."""

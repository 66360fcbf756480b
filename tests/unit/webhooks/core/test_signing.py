"""Both header sets, against vectors made with `openssl dgst -hmac` and against Standard Webhooks' own verifier."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.unit.webhooks.kit import OLDER_SECRET, SECRET
from webhooks.core import signing

BODY = (
    '{"type":"API_BILLING_USAGE","data":{"events":[{"idempotencyKey":"01J8Z6P6QK4N7R3T5V9W1X2Y3Z",'
    '"requestMetadata":{"team":"räksmörgås"}}]}}'
).encode()
DELIVERY_ID = "5f1c7a9e-3b52-4d8e-9a41-0c6d2b7e8f10"
AT = datetime.fromtimestamp(1767225600.75, UTC)
WHOLE = "v1=c7fc4c0c46afc1789db1d2a00044f9b4f842fcde026ef2d142e604cae9c7bcbd"
WHOLE_OLDER = "v1=1bf298b64c615dac4c8ed8b0db746176eb439400a767dda20000f88b00a89bc5"
STANDARD = "v1,daIMW1UJT5HlcWAdR5bxfCK8kVvRawj+Q/zP3SQKyAs="
STANDARD_OLDER = "v1,lCsG6T6//OU9cD5Z06SyrFTHU5G0tj1y6w46E0EqpVI="


def test_one_secret_gives_the_golden_headers() -> None:
    assert signing.sign(BODY, DELIVERY_ID, [SECRET], AT) == {
        "X-Baseten-Signature": WHOLE,
        "X-Baseten-Request-ID": DELIVERY_ID,
        "webhook-id": DELIVERY_ID,
        "webhook-timestamp": "1767225600",
        "webhook-signature": STANDARD,
    }


def test_two_secrets_both_sign_newest_first() -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET, OLDER_SECRET], AT)
    assert headers["X-Baseten-Signature"] == f"{WHOLE},{WHOLE_OLDER}"
    assert headers["webhook-signature"] == f"{STANDARD} {STANDARD_OLDER}"


@pytest.mark.parametrize("secret", [SECRET, OLDER_SECRET])
def test_others_accept_what_is_signed(secret: str) -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET, OLDER_SECRET], datetime.now(UTC))
    Webhook(secret).verify(BODY, headers)
    expected = hmac.new(secret.encode(), BODY, hashlib.sha256).hexdigest()
    assert f"v1={expected}" in headers["X-Baseten-Signature"].split(",")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)


@pytest.mark.parametrize("secret", [SECRET, OLDER_SECRET])
def test_verify_accepts_either_secret_and_headers_in_any_case(secret: str) -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET, OLDER_SECRET], AT)
    signing.verify({name.upper(): value for name, value in headers.items()}, BODY, [secret], AT)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"X-Baseten-Signature": WHOLE_OLDER}, "X-Baseten-Signature does not match"),
        ({"X-Baseten-Signature": "v1=räk"}, "X-Baseten-Signature does not match"),
        ({"webhook-signature": STANDARD_OLDER}, "webhook-signature does not match"),
        ({"webhook-signature": WHOLE}, "webhook-signature does not match"),
        ({"webhook-id": "another"}, "differ"),
        ({"webhook-timestamp": "1767225601"}, "webhook-signature does not match"),
        ({"webhook-timestamp": "soon"}, "not a whole number"),
        ({"webhook-timestamp": "²"}, "not a whole number"),
        ({"webhook-timestamp": "9" * 400}, "not a whole number"),
        ({"webhook-timestamp": ""}, "missing header webhook-timestamp"),
        ({"X-Baseten-Request-ID": ""}, "missing header X-Baseten-Request-ID"),
    ],
)
def test_verify_says_what_is_wrong(changed: dict[str, str], reason: str) -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET], AT) | changed
    with pytest.raises(signing.VerificationError, match=reason):
        signing.verify(headers, BODY, [SECRET], AT)


def test_verify_refuses_another_body_and_another_secret() -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET], AT)
    with pytest.raises(signing.VerificationError):
        signing.verify(headers, BODY + b"\n", [SECRET], AT)
    with pytest.raises(signing.VerificationError):
        signing.verify(headers, BODY, [OLDER_SECRET], AT)


@pytest.mark.parametrize("sign", [1, -1])
def test_verify_refuses_timestamps_away_from_the_clock(sign: int) -> None:
    headers = signing.sign(BODY, DELIVERY_ID, [SECRET], AT)
    signed_at = datetime.fromtimestamp(1767225600, UTC)
    signing.verify(headers, BODY, [SECRET], signed_at + sign * timedelta(seconds=signing.TOLERANCE_S))
    with pytest.raises(signing.VerificationError, match="away from this clock"):
        signing.verify(headers, BODY, [SECRET], signed_at + sign * timedelta(seconds=signing.TOLERANCE_S + 0.1))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!", "AAECAwQF", "whsec_räk", "whsec_AAEC!AwQF", "whsec_AAECAwQF\n"]
)
def test_an_unusable_secret_is_named_without_being_shown(secret: str) -> None:
    with pytest.raises(signing.SecretError) as caught:
        signing.sign(BODY, DELIVERY_ID, [secret], AT)
    assert str(caught.value) == "a signing secret must be whsec_ followed by base64"

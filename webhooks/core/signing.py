"""Signs and verifies webhook bodies, under both header sets of contract 5.

Signatures are compared in constant time.

Of a secret `whsec_` + base64 of 32 bytes, `X-Baseten-Signature` is keyed with the UTF-8 bytes of the whole text, and
Standard Webhooks' `webhook-signature` with the decoded bytes. While two secrets are valid, both sign, newest first.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

SIGNATURE = "X-Baseten-Signature"
REQUEST_ID = "X-Baseten-Request-ID"
STANDARD_ID = "webhook-id"
STANDARD_TIMESTAMP = "webhook-timestamp"
STANDARD_SIGNATURE = "webhook-signature"

TOLERANCE_S = 300
"""How far, either way, a webhook-timestamp may lie from the receiver's clock (Standard Webhooks); inclusive."""

_PREFIX = "whsec_"


class SecretError(ValueError):
    """A signing secret is not `whsec_` + base64. The message does not repeat it."""


class VerificationError(Exception):
    """A body was not signed as its headers say; the message says what is wrong."""


def decode(secret: str) -> bytes:
    """Return the bytes that key Standard Webhooks' signature. Raise SecretError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not key:
        raise SecretError(f"a signing secret must be {_PREFIX} followed by base64")
    return key


def sign(body: bytes, delivery_id: str, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """Return the headers of one attempt at `now`; `secrets` are those valid, newest first. Raise SecretError."""
    timestamp = str(int(now.timestamp()))
    return {
        SIGNATURE: ",".join(f"v1={_whole_text(secret, body)}" for secret in secrets),
        REQUEST_ID: delivery_id,
        STANDARD_ID: delivery_id,
        STANDARD_TIMESTAMP: timestamp,
        STANDARD_SIGNATURE: " ".join(f"v1,{_standard(secret, delivery_id, timestamp, body)}" for secret in secrets),
    }


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> None:
    """Check both header sets of a received body; each must match one of `secrets`. Header names in any case.

    Raise VerificationError; SecretError where a secret itself is unusable.
    """
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in _ALL if not given.get(name.lower())]
    if missing:
        raise VerificationError(f"missing header {', '.join(missing)}")
    _verify_timestamp(given[STANDARD_TIMESTAMP], now)
    delivery_id, timestamp = given[STANDARD_ID], given[STANDARD_TIMESTAMP]
    if given[REQUEST_ID.lower()] != delivery_id:
        raise VerificationError(f"{REQUEST_ID} and {STANDARD_ID} differ")
    whole = [f"v1={_whole_text(secret, body)}" for secret in secrets]
    if not _any_equal(given[SIGNATURE.lower()].split(","), whole):
        raise VerificationError(f"{SIGNATURE} does not match the body and the secret")
    standard = [f"v1,{_standard(secret, delivery_id, timestamp, body)}" for secret in secrets]
    if not _any_equal(given[STANDARD_SIGNATURE].split(" "), standard):
        raise VerificationError(f"{STANDARD_SIGNATURE} does not match the id, the timestamp, the body and the secret")


_ALL = (SIGNATURE, REQUEST_ID, STANDARD_ID, STANDARD_TIMESTAMP, STANDARD_SIGNATURE)


def _whole_text(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _standard(secret: str, delivery_id: str, timestamp: str, body: bytes) -> str:
    content = f"{delivery_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(decode(secret), content, hashlib.sha256).digest()).decode()


def _verify_timestamp(text: str, now: datetime) -> None:
    # Ten digits reach beyond the year 2200; without a bound a huge number would overflow instead of being refused.
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise VerificationError(f"{STANDARD_TIMESTAMP} is not a whole number of seconds")
    if abs(int(text) - now.timestamp()) > TOLERANCE_S:
        raise VerificationError(f"{STANDARD_TIMESTAMP} is more than {TOLERANCE_S} s away from this clock")


def _any_equal(given: Sequence[str], expected: Sequence[str]) -> bool:
    pairs = [hmac.compare_digest(one.strip().encode(), other.encode()) for one in given for other in expected]
    return any(pairs)

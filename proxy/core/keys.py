"""Reads the Authorization header and compares a developer's key (contract 3).

Never puts any part of a key into a message beyond what the caller already knows.
"""

import hashlib
import hmac
from dataclasses import dataclass

from schemas.config import KEY_PREFIX_LENGTH

MAX_KEY_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as it was sent."""

    prefix: str
    key: bytes


@dataclass(frozen=True, slots=True)
class BadCredential:
    """Why the header holds no key that could be looked up."""

    message: str


def read(authorization: bytes | None, *, accept_bearer: bool) -> Credential | BadCredential:
    """Return the key of an Authorization header."""
    if authorization is None:
        return BadCredential("No credential was sent. Send your key as: Authorization: Api-Key <key>.")
    scheme, _, key = authorization.strip().partition(b" ")
    key = key.strip()
    name = scheme.lower()
    if name == b"bearer" and not accept_bearer:
        return BadCredential(
            "Bearer is not accepted here. Send your key as: Authorization: Api-Key <key>. With an OpenAI SDK set "
            'default_headers={"Authorization": "Api-Key <key>"}.'
        )
    if name not in (b"api-key", b"bearer"):
        return BadCredential("The scheme of the Authorization header is not known. Use: Authorization: Api-Key <key>.")
    if not KEY_PREFIX_LENGTH < len(key) <= MAX_KEY_LENGTH or not key.isascii():
        return BadCredential("This is not a key. Send your key as: Authorization: Api-Key <key>.")
    return Credential(key[:KEY_PREFIX_LENGTH].decode("ascii"), key)


def matches(key: bytes, sha256: bytes) -> bool:
    """Compare a key with the digest on record, in constant time."""
    return hmac.compare_digest(hashlib.sha256(key).digest(), sha256)

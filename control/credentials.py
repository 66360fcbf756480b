"""Mints credentials and takes the parts of them that may be kept (contract 2.3, section 5)."""

import base64
import binascii
import hashlib
import hmac
import secrets
import string

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.config import KEY_PREFIX_LENGTH

_ALPHABET = string.ascii_letters + string.digits
_NAME_LENGTH = 12
_SECRET_LENGTH = 40


def mint_management_key() -> str:
    """Return a new management key: ``tgm_`` + 12 characters, ``.``, 40 random characters (238 bits)."""
    return f"tgm_{_random(_NAME_LENGTH)}.{_random(_SECRET_LENGTH)}"


def mint_developer_key() -> str:
    """Return a new developer's key: ``sky_`` + 12 characters, ``.``, 40 random characters (238 bits)."""
    return f"sky_{_random(_NAME_LENGTH)}.{_random(_SECRET_LENGTH)}"


def mint_webhook_secret() -> str:
    """Return a new signing secret: ``whsec_`` + base64 of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def prefix(key: str) -> str:
    """Return the part of a key that names it: its first 16 characters."""
    return key[:KEY_PREFIX_LENGTH]


def digest(key: str) -> str:
    """Return the hex SHA-256 of the whole key, the only form that is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def matches(key: str, sha256: str) -> bool:
    """Compare a key with a stored digest in constant time."""
    return hmac.compare_digest(digest(key), sha256)


def public_key(pem: bytes) -> str | None:
    """Return the Ed25519 public key of a PEM file as it is stored, base64 of its 32 bytes; None for others."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return base64.b64encode(key.public_bytes_raw()).decode() if isinstance(key, Ed25519PublicKey) else None


def is_signed(key: str, signature: str, body: bytes) -> bool:
    """Tell whether `signature`, base64, is the Ed25519 signature of the body by the private half of `key`."""
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(raw, body)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))

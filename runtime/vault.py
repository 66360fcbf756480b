"""Encrypts secrets at rest with the operator's master key (AES-256-GCM).

Never lets a sealed text be opened under another context.
"""

import base64
import binascii
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12


class VaultError(Exception):
    """The master key is unusable, or it is not the one that sealed a text."""


class Vault:
    """Seals and opens short texts. `context` names the owner, so that a sealed text cannot be moved."""

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != KEY_BYTES:
            raise VaultError(f"the master key must be {KEY_BYTES} bytes, base64-encoded")
        self._cipher = AESGCM(master_key)
        self._master_key = master_key

    def seal(self, plaintext: str, context: str) -> str:
        """Encrypt under a fresh nonce; return base64 text."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, plaintext.encode(), context.encode())).decode()

    def digest(self, text: str, context: str) -> str:
        """Return the hex HMAC-SHA256 of a text under a key of this context alone, derived from the master key."""
        derived = hmac.digest(self._master_key, f"tollgate digest: {context}".encode(), "sha256")
        return hmac.digest(derived, text.encode(), "sha256").hex()

    def open(self, sealed: str, context: str) -> str:
        """Decrypt what `seal` gave for the same context. Raise VaultError otherwise."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise VaultError("a secret could not be decrypted: is this the master key that sealed it?") from error


def decode_key(text: str) -> bytes:
    """Read a master key from its base64 form. Raise VaultError where it is not 32 bytes of base64."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError(f"the master key must be {KEY_BYTES} bytes, base64-encoded")
    return key


def load_or_create_key(path: Path) -> bytes:
    """Read the embedded default's key file, or make one of mode 0600. Safe when two processes start at once."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # fails where a key exists: the first one wins, whole or not at all
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return decode_key(path.read_text(encoding="ascii"))

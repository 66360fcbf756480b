"""Reads the key of a Google service account, as a lab's secret holds it.

Never keeps what names a place, a file or a command: a lab's secret must not choose where the gateway calls
(https://cloud.google.com/iam/docs/keys-create-delete).
"""

import msgspec


class _Key(msgspec.Struct, tag="service_account", tag_field="type"):
    client_email: str
    private_key: str
    private_key_id: str | None = None


def canonical(text: str) -> str | None:
    """Return the key's JSON with only what signs; None for any other kind of credential."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text, type=_Key)).decode()
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None

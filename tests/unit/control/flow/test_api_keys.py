import base64
import math

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control import credentials
from control.core import registered_keys
from control.core.refusals import InvalidError, NotFoundError
from control.flow import api_keys
from schemas.api import CreateApiKey, RegisterApiKey
from tests.unit.control.fakes import NOW, FakeApiKeys, FakeJournal

OWN = "abcdefghijklmnop-0123456789/ABCDEF"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def register(keys: FakeApiKeys, key: str, journal: FakeJournal | None = None) -> str:
    body = RegisterApiKey(key=key, name="own")
    kept = api_keys.register(keys, journal or FakeJournal(), workspace_id="w", group_id="g", body=body, now=NOW)
    return kept.record.prefix


def test_a_key_is_minted_for_its_group_alone() -> None:
    keys, journal = FakeApiKeys(), FakeJournal()
    body = CreateApiKey(name="n")
    minted = api_keys.mint(keys, journal, workspace_id="w", group_id="g", body=body, now=NOW)
    kept = api_keys.get(keys, "g", minted.prefix)
    assert kept.record.sha256 == credentials.digest(minted.api_key)
    assert minted.api_key not in repr(kept)
    assert journal.notes == [("w", "api_key.create", minted.prefix, None, {"group_id": "g", "name": "n"})]
    for group_id, prefix in (("other", minted.prefix), ("g", "nothing")):
        with pytest.raises(NotFoundError):
            api_keys.get(keys, group_id, prefix)


def test_a_revoked_key_is_gone() -> None:
    keys, journal = FakeApiKeys(), FakeJournal()
    prefix = register(keys, OWN)
    with pytest.raises(NotFoundError):
        api_keys.revoke(keys, journal, workspace_id="w", group_id="other", prefix=prefix, now=NOW)
    api_keys.revoke(keys, journal, workspace_id="w", group_id="g", prefix=prefix, now=NOW)
    assert journal.actions == ["api_key.revoke"]
    assert not keys.kept


def test_a_labs_own_key_is_kept_as_its_digest() -> None:
    keys, journal = FakeApiKeys(), FakeJournal()
    assert register(keys, OWN, journal) == OWN[:16]
    assert keys.kept[OWN[:16]].record.sha256 == credentials.digest(OWN)
    assert OWN not in repr((keys.kept, journal.notes))


def test_the_first_16_characters_name_one_key() -> None:
    keys = FakeApiKeys()
    register(keys, OWN)
    with pytest.raises(InvalidError, match="first 16") as refusal:
        register(keys, OWN[:16] + "zyxwvutsrqponmlk")
    assert refusal.value.code == "prefix_taken"


@pytest.mark.parametrize(("key", "taken"), [("ab" * 16, False), ("abcdefg" * 5, False), ("abcdefgh" * 4, True)])
def test_a_key_needs_three_bits_a_character(key: str, taken: bool) -> None:
    if taken:
        registered_keys.check(key)
        return
    with pytest.raises(InvalidError, match=r"3\.0 bits") as refusal:
        registered_keys.check(key)
    assert key not in refusal.value.message


@given(st.text("abcdefghijklmnop", min_size=1, max_size=128))
def test_entropy_is_bounded_by_the_number_of_different_characters(text: str) -> None:
    assert 0 <= registered_keys.entropy_bits(text) <= math.log2(len(set(text))) + 1e-9


def test_a_signature_of_the_raw_body_is_confirmed() -> None:
    public = credentials.public_key(PEM)
    assert public == base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
    body = b'{"key": "k"}'
    signature = base64.b64encode(PRIVATE.sign(body)).decode()
    api_keys.check_signature(public, signature, body)
    wrong = [None, "", "ä", "%%%", signature[:-4], base64.b64encode(bytes(64)).decode()]
    for each, signed in [*((bad, body) for bad in wrong), (signature, body + b" ")]:
        with pytest.raises(InvalidError, match=r"^Signature verification failed$"):
            api_keys.check_signature(public, each, signed)
    with pytest.raises(InvalidError, match=r"^Must configure a public key before registering API keys$"):
        api_keys.check_signature(None, signature, body)


def test_only_an_ed25519_public_key_is_one() -> None:
    private = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (b"", b"no key", private, PEM[:-40]):
        assert credentials.public_key(pem) is None

import base64
import math

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control import credentials
from control.core import registered_keys
from control.core.records import Group
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import api_keys
from schemas.api import CreateApiKey, RegisterApiKey
from schemas.config import GroupRecord
from schemas.limits import LimitEnforcement
from tests.unit.control.fakes import NOW, FakeStores

OWN = "abcdefghijklmnop-0123456789/ABCDEF"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def stores() -> FakeStores:
    """Make the stores of a workspace with the groups `g` and `other`, that may register keys."""
    made = FakeStores()
    for name in ("g", "other"):
        record = GroupRecord(
            id=name,
            workspace_id="w",
            external_entity_id=name,
            parent_group_id=None,
            ancestor_ids=(),
            limit_enforcement=LimitEnforcement.INDEPENDENT,
            models=(),
        )
        made.groups.add(Group(record, None, NOW, NOW))
    made.workspaces.set_public_key("w", base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode())
    return made


def register(stored: FakeStores, key: str) -> str:
    body = RegisterApiKey(key=key, name="own")
    raw = body.model_dump_json().encode()
    signature = base64.b64encode(PRIVATE.sign(raw)).decode()
    return api_keys.register(stored.unit(), "g", body, signature, raw).record.prefix


def test_a_key_is_minted_for_its_group_alone() -> None:
    stored = stores()
    minted = api_keys.mint(stored.unit(), "g", CreateApiKey(name="n"))
    kept = api_keys.get(stored.unit(), "g", minted.prefix)
    assert kept.record.sha256 == credentials.digest(minted.api_key)
    assert minted.api_key not in repr(kept)
    assert stored.journal.notes == [("w", "api_key.create", minted.prefix, None, {"group_id": "g", "name": "n"})]
    for group_id, prefix in (("other", minted.prefix), ("g", "nothing"), ("gone", minted.prefix)):
        with pytest.raises(NotFoundError):
            api_keys.get(stored.unit(), group_id, prefix)
    with pytest.raises(ForbiddenError):
        api_keys.get(stored.unit("stranger"), "g", minted.prefix)


def test_a_revoked_key_is_gone() -> None:
    stored = stores()
    prefix = register(stored, OWN)
    stored.journal.notes.clear()
    with pytest.raises(NotFoundError):
        api_keys.revoke(stored.unit(), "other", prefix)
    api_keys.revoke(stored.unit(), "g", prefix)
    assert stored.journal.actions == ["api_key.revoke"]
    assert not stored.api_keys.kept


def test_a_labs_own_key_is_kept_as_its_digest() -> None:
    stored = stores()
    assert register(stored, OWN) == OWN[:16]
    assert stored.api_keys.kept[OWN[:16]].record.sha256 == credentials.digest(OWN)
    assert OWN not in repr((stored.api_keys.kept, stored.journal.notes))


def test_the_first_16_characters_name_one_key() -> None:
    stored = stores()
    register(stored, OWN)
    with pytest.raises(InvalidError, match="first 16") as refusal:
        register(stored, OWN[:16] + "zyxwvutsrqponmlk")
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

import base64
import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from control import credentials
from control.core import registered_keys
from control.core.records import StoredGroup
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError, RefusalError
from control.flow import api_keys
from schemas.api import CreateApiKey, CreateApiKeys, RegisterApiKey, UpdateApiKey
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
        made.groups.add(StoredGroup(record, None, NOW, NOW))
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


def code(act: Callable[[], object]) -> str | None:
    with pytest.raises(RefusalError) as refusal:
        act()
    return refusal.value.code


def test_a_change_keeps_what_it_does_not_name_and_null_takes_away() -> None:
    stored = stores()
    end = NOW + timedelta(days=1)
    prefix = api_keys.mint(stored.unit(), "g", CreateApiKey(name="n", expires_at=end, metadata={"a": "b"})).prefix
    disabled = api_keys.update(stored.unit(), "g", prefix, UpdateApiKey(disabled=True))
    assert (disabled.name, disabled.metadata, disabled.record.expires_at) == ("n", {"a": "b"}, end)
    assert (disabled.disabled, disabled.record.disabled) == (True, True)
    body = UpdateApiKey(name=None, disabled=None, expires_at=None, metadata=None)
    bare = api_keys.update(stored.unit(), "g", prefix, body)
    assert (bare.name, bare.disabled, bare.record.disabled) == (None, None, False)
    assert (bare.record.expires_at, bare.metadata) == (None, None)
    assert stored.journal.actions == ["api_key.create", "api_key.update", "api_key.update"]
    assert code(lambda: api_keys.update(stored.unit(), "g", prefix, UpdateApiKey())) == "nothing_to_change"
    other = UpdateApiKey(prefix="sky_other", name="x")
    assert code(lambda: api_keys.update(stored.unit(), "g", prefix, other)) == "immutable"


@pytest.mark.parametrize(
    ("own_end_s", "overlap_s", "ends_s"),
    [(None, 60, 60), (None, 0, 0), (30, 60, 30), (60, 30, 30), (60, 60, 60)],
)
def test_a_rotated_key_ends_with_the_overlap_or_earlier_by_itself(
    own_end_s: int | None, overlap_s: int, ends_s: int
) -> None:
    stored = stores()
    end = None if own_end_s is None else NOW + timedelta(seconds=own_end_s)
    old = api_keys.mint(stored.unit(), "g", CreateApiKey(name="n", expires_at=end, metadata={"a": "b"})).prefix
    made = api_keys.rotate(stored.unit(), "g", old, timedelta(seconds=overlap_s))
    assert (made.name, made.previous_expires_at) == ("n", NOW + timedelta(seconds=ends_s))
    successor, ending = stored.api_keys.kept[made.prefix], stored.api_keys.kept[old]
    assert (successor.record.expires_at, successor.metadata, successor.record.group_id) == (end, {"a": "b"}, "g")
    assert successor.record.sha256 == credentials.digest(made.api_key)
    assert ending.record.expires_at == made.previous_expires_at


def test_a_key_is_rotated_once_unless_its_end_is_set_anew() -> None:
    stored = stores()
    old = api_keys.mint(stored.unit(), "g", CreateApiKey()).prefix
    api_keys.rotate(stored.unit(), "g", old, timedelta(hours=1))
    again = partial(api_keys.rotate, stored.unit(), "g", old, timedelta(hours=1))
    assert code(again) == "already_rotated"
    api_keys.update(stored.unit(), "g", old, UpdateApiKey(expires_at=None))
    assert again().prefix != old


def test_an_expired_key_has_no_successor() -> None:
    stored = stores()
    old = api_keys.mint(stored.unit(), "g", CreateApiKey(expires_at=NOW)).prefix
    assert code(lambda: api_keys.rotate(stored.unit(), "g", old, timedelta())) == "key_expired"
    assert list(stored.api_keys.kept) == [old]


def test_several_keys_are_minted_in_their_order() -> None:
    stored = stores()
    body = CreateApiKeys(items=(CreateApiKey(name="a"), CreateApiKey(name="b", metadata={"x": "y"})))
    made = api_keys.mint_all(stored.unit(), "g", body).items
    assert [each.name for each in made] == ["a", "b"]
    assert [stored.api_keys.kept[each.prefix].name for each in made] == ["a", "b"]


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
